package journal

import (
	"io"
	"os"
)

// part is a file opened for reading, and how much of it is valid; all of it if size is negative.
type part struct {
	*os.File
	size int64
}

func (p part) reader() io.Reader {
	if p.size < 0 {
		return p.File
	}
	return io.NewSectionReader(p.File, 0, p.size)
}

package probe

import (
	"io/fs"
	"os"
	"strings"
)

// Tree is the files of a machine, by absolute path: of this one with an empty Root, or of an instance whose root folder is
// seen at Root. In an instance nothing leads out: a path through a link that does is an error, and so is every absolute link.
type Tree struct{ Root string }

// Stat is os.Stat.
func (t Tree) Stat(path string) (fs.FileInfo, error) {
	if t.Root == "" {
		return os.Stat(path)
	}
	root, err := os.OpenRoot(t.Root)
	if err != nil {
		return nil, err
	}
	defer root.Close() // only read
	return root.Stat(inside(path))
}

// OpenFile is os.OpenFile, for reading.
func (t Tree) OpenFile(path string, flag int) (*os.File, error) {
	if t.Root == "" {
		return os.OpenFile(path, os.O_RDONLY|flag, 0)
	}
	root, err := os.OpenRoot(t.Root)
	if err != nil {
		return nil, err
	}
	defer root.Close() // what it opened stays open
	return root.OpenFile(inside(path), os.O_RDONLY|flag, 0)
}

// OpenRoot is os.OpenRoot.
func (t Tree) OpenRoot(path string) (*os.Root, error) {
	if t.Root == "" {
		return os.OpenRoot(path)
	}
	root, err := os.OpenRoot(t.Root)
	if err != nil {
		return nil, err
	}
	defer root.Close() // what it opened stays open
	return root.OpenRoot(inside(path))
}

// inside makes a path relative to the root.
func inside(path string) string {
	if path = strings.Trim(path, "/"); path == "" {
		return "."
	}
	return path
}

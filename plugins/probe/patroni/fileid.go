package patroni

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
)

// Bounds of what is read of a configuration.
const (
	maxConfigFiles = 100
	maxConfigSize  = 1 << 20
)

// errTooMany says that a configuration directory is not one that anybody wrote.
var errTooMany = errors.New("too many files")

// absentID is the identity of a configuration that does not exist.
const absentID = "absent"

// FileID returns a text that changes whenever the configuration changes: device, inode, size and times of the file, or
// of every file that Patroni would read if the path is a directory. It is "absent" for a path that does not exist, and
// begins with "irregular" for something that is neither a file nor a directory. It opens nothing, so that a pipe in the
// file's place does not block it, but a file system that hangs does.
func FileID(path string) (string, error) { return FileIDIn(probe.Tree{}, path) }

// FileIDIn is FileID of a configuration in a tree.
func FileIDIn(tree probe.Tree, path string) (string, error) {
	info, err := tree.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return absentID, nil
	}
	if err != nil {
		return "", err
	}
	if info.Mode().IsRegular() {
		return identify(info)
	}
	id, err := identify(info)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		return "irregular " + id, nil
	}
	// The directory's own times do not count: files that Patroni does not read come and go in it.
	names, err := configFiles(tree, path)
	if err != nil {
		return "", err
	}
	ids := make([]string, 0, len(names))
	for _, name := range names {
		info, err := tree.Stat(filepath.Join(path, name))
		if err != nil {
			return "", err
		}
		if !info.Mode().IsRegular() {
			continue
		}
		id, err := identify(info)
		if err != nil {
			return "", err
		}
		ids = append(ids, name+" "+id)
	}
	return strings.Join(ids, ", "), nil
}

func identify(info fs.FileInfo) (string, error) {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", errors.ErrUnsupported
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", s.Dev, s.Ino, s.Size, info.ModTime().UnixNano(), changeTime(s)), nil
}

// configFiles returns the names of the files that Patroni reads from a configuration directory, in its order.
func configFiles(tree probe.Tree, dir string) ([]string, error) {
	f, err := tree.OpenFile(dir, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	all, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	names := slices.DeleteFunc(all, func(name string) bool {
		return !strings.HasSuffix(name, ".yml") && !strings.HasSuffix(name, ".yaml")
	})
	if len(names) > maxConfigFiles {
		return nil, fmt.Errorf("read %s: %w", dir, errTooMany)
	}
	slices.Sort(names)
	return names, nil
}

// readConfig returns the text of a configuration; of a directory, all its files in Patroni's order.
func readConfig(tree probe.Tree, path string) ([]byte, error) {
	info, err := tree.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return readRegular(tree, path)
	}
	names, err := configFiles(tree, path)
	if err != nil {
		return nil, err
	}
	var all []byte
	for _, name := range names {
		b, err := readRegular(tree, filepath.Join(path, name))
		if err != nil {
			return nil, err
		}
		all = append(append(all, b...), '\n')
	}
	return all, nil
}

// readRegular reads a bounded regular file and waits for no pipe. Anything else reads as nothing.
func readRegular(tree probe.Tree, path string) ([]byte, error) {
	f, err := tree.OpenFile(path, syscall.O_NONBLOCK)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(f, maxConfigSize))
}

var (
	topLevel  = regexp.MustCompile(`(?m)^["']?(name|scope)["']?[ \t]*:[ \t]+(?:"([^"\n]*)"|'([^'\n]*)'|([^\s#"'][^\n#]*?))[ \t]*(?:#.*)?\r?$`)
	wholeName = regexp.MustCompile(`^` + nameGrammar + `$`)
)

// parseIdentity returns the top-level name and scope of a configuration's text, each empty if it has none or has one
// that does not keep to the grammar of names. The last one counts, as for PyYAML and for a directory's files. This is
// no YAML parser: a file that says it in an unusual way (flow style, anchors) says nothing here.
func parseIdentity(text []byte) (name, scope string) {
	for _, m := range topLevel.FindAllSubmatch(text, -1) {
		value := string(m[2]) + string(m[3]) + string(m[4])
		if !wholeName.MatchString(value) {
			value = ""
		}
		if string(m[1]) == "name" {
			name = value
		} else {
			scope = value
		}
	}
	return name, scope
}

// look is what the file system says of a configuration.
type look struct {
	id          string
	name, scope string
}

func lookAt(ctx context.Context, g *probe.Gate, tree probe.Tree, path string) (look, error) {
	return probe.Do(ctx, g, func() (look, error) {
		id, err := FileIDIn(tree, path)
		if err != nil || id == absentID || strings.HasPrefix(id, "irregular") {
			return look{id: id}, err
		}
		text, err := readConfig(tree, path)
		if err != nil {
			return look{}, err
		}
		l := look{id: id}
		l.name, l.scope = parseIdentity(text)
		return l, nil
	})
}

package probe

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestTree(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	root := filepath.Join(dir, "root")
	err := errors.Join(
		os.WriteFile(secret, []byte("secret"), 0o600),
		os.MkdirAll(filepath.Join(root, "etc"), 0o755),
		os.WriteFile(filepath.Join(root, "etc/a"), []byte("a"), 0o600),
		os.Symlink("a", filepath.Join(root, "etc/same")),
		os.Symlink(secret, filepath.Join(root, "etc/absolute")),
		os.Symlink("../../secret", filepath.Join(root, "etc/above")),
	)
	if err != nil {
		t.Fatal(err)
	}
	for path, fine := range map[string]bool{"/etc/a": true, "/etc/same": true, "/etc/absolute": false, "/etc/above": false, "/../secret": false, "/etc/absent": false} {
		in := Tree{Root: root}
		_, err := in.Stat(path)
		f, openErr := in.OpenFile(path, 0)
		if (err == nil) != fine || (openErr == nil) != fine {
			t.Errorf("%s: got %v, %v", path, err, openErr)
		}
		if openErr == nil {
			if b, err := io.ReadAll(f); string(b) != "a" || err != nil {
				t.Errorf("%s: got %q, %v", path, b, err)
			}
			_ = f.Close()
		}
	}
	sub, err := Tree{Root: root}.OpenRoot("/etc")
	if err != nil {
		t.Fatal(err)
	}
	_, err = sub.Stat("a")
	if closeErr := sub.Close(); err != nil || closeErr != nil {
		t.Error(err, closeErr)
	}
	here := Tree{}
	if _, err := here.Stat(secret); err != nil {
		t.Error(err)
	}
	if _, err := here.OpenFile(filepath.Join(root, "absent"), 0); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if r, err := here.OpenRoot(root); err != nil {
		t.Error(err)
	} else {
		_ = r.Close()
	}
}

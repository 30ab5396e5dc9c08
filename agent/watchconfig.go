package agent

import (
	"context"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// configQuiet is how long the configuration file must stay unchanged before it is read: editors write in steps.
const configQuiet = time.Second

// watchConfig asks for a reload when the configuration file changes. It watches the directory, because editors and
// configuration management replace the file. Without a watch, SIGHUP still works.
func (a *Agent) watchConfig(ctx context.Context) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		a.o.Logger.Warn("configuration file not watched, reload with SIGHUP", "err", err)
		return nil
	}
	defer w.Close()
	path, err := filepath.Abs(a.o.ConfigPath)
	if err == nil {
		err = w.Add(filepath.Dir(path))
	}
	if err != nil {
		a.o.Logger.Warn("configuration file not watched, reload with SIGHUP", "err", err)
		return nil
	}
	quiet := time.NewTimer(configQuiet)
	quiet.Stop()
	defer quiet.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-w.Events:
			if !ok {
				return nil
			}
			if e.Name == path && !e.Has(fsnotify.Chmod) {
				quiet.Reset(configQuiet)
			}
		case err := <-w.Errors:
			a.o.Logger.Warn("configuration watch", "err", err)
			quiet.Reset(configQuiet)
		case <-quiet.C:
			a.Reload()
		}
	}
}

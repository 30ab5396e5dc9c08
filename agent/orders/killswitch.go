package orders

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// maxFile bounds what is read of a file; what is longer is not a kill switch's text.
const maxFile = 4 << 10

// killSwitch returns the hold of a file that is there and has not ended. An error means that the switch counts as set
// although it could not be read.
func (k *Keeper) killSwitch(path string) (*node.Hold, error) {
	text, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s is there and cannot be read: %w", path, err)
	}
	h := node.Hold{Owner: node.Unknown, Reason: path + " is there"}
	if strings.TrimSpace(string(text)) != "" {
		if h, err = node.ParseHold(text); err != nil {
			return nil, fmt.Errorf("%s is there and not intelligible: %w", path, err)
		}
	}
	if !h.Until.IsZero() && !k.d.Wall().Before(h.Until) {
		return nil, nil
	}
	h.Kind, h.Level = node.HoldKill, node.LevelNode
	return &h, nil
}

// readFile reads a small regular file. It waits for nothing, whatever is found under the name.
func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		// A link that leads nowhere was put there by somebody.
		if _, broken := os.Lstat(path); broken == nil {
			return nil, errors.New("it is a link that leads nowhere")
		}
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !st.Mode().IsRegular():
		return nil, errors.New("it is not a regular file")
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("it is longer than %d bytes", maxFile)
	}
	return b, err
}

// writeKillSwitch puts the file in place whole or not at all, so that no crash leaves half of it.
func (k *Keeper) writeKillSwitch(h node.Hold) error {
	text, err := node.HoldText(h)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	f, err := os.OpenFile(k.d.File+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("set kill switch: %w", err)
	}
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), k.d.File)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("set kill switch: %w", err), os.Remove(f.Name()))
	}
	return nil
}

// ownKillSwitch returns what the agent's own file says, if that file is all that sets the kill switch.
func (k *Keeper) ownKillSwitch() (node.Hold, error) {
	for _, path := range k.d.Watched {
		if h, err := k.killSwitch(path); h != nil || err != nil {
			return node.Hold{}, fmt.Errorf("kill switch of this node: it is set by %s; remove that file: %w", path, ErrInvalid)
		}
	}
	h, err := k.killSwitch(k.d.File)
	if h == nil && err == nil {
		return node.Hold{}, fmt.Errorf("kill switch of this node: %w", ErrNotSet)
	}
	if h == nil { // what stands in it is nobody's words
		h = &node.Hold{Kind: node.HoldKill, Level: node.LevelNode, Owner: node.Unknown, Reason: "it was not intelligible"}
	}
	return *h, nil
}

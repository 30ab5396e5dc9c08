package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"syscall"
)

// maxSecretFile is far above any password or certificate chain, and far below what would hurt.
const maxSecretFile = 64 << 10

// redacted is all that anybody sees of a Secret.
const redacted = "<redacted>"

// Secret is a text that prints, logs and encodes as "<redacted>". The zero value is no secret at all. Values are
// immutable and safe for concurrent use; compare them with Equal.
type Secret struct {
	// A pointer, because package fmt does not call the methods of a value in an unexported field of somebody else's
	// struct: it would print the text, but of a nested pointer it prints only the address.
	text *string
}

// NewSecret returns the secret with the given text.
func NewSecret(text string) Secret { return Secret{&text} }

// Reveal returns the text itself. Call it where the secret is handed to a client, and nowhere else.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// Empty reports whether there is no secret.
func (s Secret) Empty() bool { return s.Reveal() == "" }

// Equal reports whether both have the same text.
func (s Secret) Equal(other Secret) bool { return s.Reveal() == other.Reveal() }

// String returns "<redacted>", or "" for no secret.
func (s Secret) String() string {
	if s.Empty() {
		return ""
	}
	return redacted
}

// Format implements fmt.Formatter, so that no verb shows the text.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText implements encoding.TextMarshaler for JSON, YAML and the like.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue implements slog.LogValuer.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// ReadSecret returns the first and only line of a file. The file must be regular, at most 64 KiB long and not readable
// by everybody.
func ReadSecret(path string) (Secret, error) {
	b, mode, err := readRegular(path, maxSecretFile)
	if err != nil {
		return Secret{}, err
	}
	if err := private(mode); err != nil {
		return Secret{}, err
	}
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("\n")), []byte("\r"))
	switch {
	case len(b) == 0:
		return Secret{}, errors.New("holds nothing")
	case bytes.ContainsAny(b, "\x00\r\n"):
		return Secret{}, errors.New("holds more than one line")
	}
	return NewSecret(string(b)), nil
}

// private returns an error if everybody may read a file of this mode.
func private(mode fs.FileMode) error {
	if mode.Perm()&0o004 != 0 {
		return fmt.Errorf("everybody may read it (mode %04o); chmod 0600 it", mode.Perm())
	}
	return nil
}

// readRegular returns the content and mode of a regular file of at most limit bytes. It does not hang on a pipe. Its
// errors do not repeat the path.
func readRegular(path string, limit int64) ([]byte, fs.FileMode, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, withoutPath(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, 0, withoutPath(err)
	}
	if !st.Mode().IsRegular() {
		return nil, 0, errors.New("is not a regular file")
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, 0, withoutPath(err)
	}
	if int64(len(b)) > limit {
		return nil, 0, fmt.Errorf("is larger than %d KiB", limit>>10)
	}
	return b, st.Mode(), nil
}

// withoutPath strips the operation and the path from an error of package os, where the caller names them.
func withoutPath(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err
	}
	return err
}

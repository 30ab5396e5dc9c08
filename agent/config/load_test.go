package config

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"
)

// write creates a file of exactly this mode, whatever the umask, and returns its path.
func write(t testing.TB, name, text string, mode fs.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// withPassword returns a configuration file whose etcd password is in another.
func withPassword(t testing.TB, password string, mode fs.FileMode) string {
	t.Helper()
	text := strings.Replace(least, "}", ", username: pgpatrol, password_file: "+write(t, "password", password, mode)+"}", 1)
	return write(t, "pgpatrol.yaml", text, 0o644)
}

func TestLoad_ReadsPasswords(t *testing.T) {
	c, err := Load(withPassword(t, "hunter2\n", 0o600))
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Etcd.Password.Reveal(); got != "hunter2" {
		t.Errorf("password is %q", got)
	}
}

func TestLoad_Refuses(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ name, path, want string }{
		{"no file", "/nonexistent/pgpatrol.yaml", "no such file or directory"},
		{"directory", t.TempDir(), "is not a regular file"},
		{"pipe", fifo, "is not a regular file"},
		{"10 MB", write(t, "c", strings.Repeat("x", 10<<20), 0o644), "is larger than 1024 KiB"},
		{"writable by everybody", write(t, "c", least, 0o646), "everybody may write this file (mode 0646); chmod o-w it"},
		{"password readable by everybody", withPassword(t, "hunter2", 0o644), "everybody may read it (mode 0644); chmod 0600 it"},
		{"empty password", withPassword(t, "\n", 0o600), "etcd.password_file: cannot be used: holds nothing"},
		{"password of two lines", withPassword(t, "hunter2\nhunter2\n", 0o600), "holds more than one line"},
		{"password of 65 KiB", withPassword(t, strings.Repeat("hunter2", 10000), 0o600), "is larger than 64 KiB"},
		{"password is a pipe", write(t, "c", strings.Replace(least, "}", ", username: u, password_file: "+fifo+"}", 1), 0o644), "is not a regular file"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Load(tc.path)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Error("a password is in the report")
			}
		})
	}
}

func TestLoad_MissingFileIsNotExist(t *testing.T) {
	if _, err := Load("/nonexistent/pgpatrol.yaml"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want fs.ErrNotExist", err)
	}
}

func TestLoad_FilesAndValuesAtOnce(t *testing.T) {
	text := "node: n1\nscope: a b\netcd:\n  endpoints: [https://192.0.2.1:2379]\n  username: u\n  password_file: /nonexistent/p\n" +
		"  tls: {ca_file: /nonexistent/ca, cert_file: /nonexistent/c, key_file: /nonexistent/k}\n"
	_, err := Load(write(t, "c.yaml", text, 0o644))
	ps, _ := errors.AsType[Problems](err)
	var got []string
	for _, p := range ps {
		got = append(got, fmt.Sprintf("%d %s", p.Line, p.Path))
	}
	want := "2 scope, 6 etcd.password_file, 7 etcd.tls.ca_file, 7 etcd.tls.cert_file, 7 etcd.tls.key_file"
	if strings.Join(got, ", ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, ", "), want)
	}
}

func TestTLS_ClientConfig(t *testing.T) {
	certPEM, keyPEM := selfSigned(t)
	cert, key := write(t, "cert", certPEM, 0o644), write(t, "key", keyPEM, 0o600)
	cfg, err := TLS{CAFile: cert, CertFile: cert, KeyFile: key, ServerName: "etcd"}.ClientConfig()
	if err != nil {
		t.Fatal(err)
	}
	if cfg.RootCAs == nil || len(cfg.Certificates) != 1 || cfg.ServerName != "etcd" {
		t.Errorf("incomplete: %d certificates, server name %q", len(cfg.Certificates), cfg.ServerName)
	}
	for _, tc := range []struct {
		name, want string
		tls        TLS
	}{
		{"key for everybody", "key_file everybody may read it", TLS{CertFile: cert, KeyFile: write(t, "key", keyPEM, 0o644)}},
		{"no certificate in the bundle", "ca_file holds no certificate", TLS{CAFile: key}},
		{"key instead of certificate", "cert_file does not go with key_file", TLS{CertFile: key, KeyFile: key}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := tc.tls.ClientConfig(); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func selfSigned(t testing.TB) (cert, key string) {
	t.Helper()
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &priv.PublicKey, priv)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
}

func TestSecret_NeverLeaks(t *testing.T) {
	const password = "hunter2"
	secret := NewSecret(password)
	c := Config{Etcd: Etcd{Password: secret}, Services: []Service{{Password: secret}}}
	hidden := struct{ s Secret }{secret} // fmt cannot call the methods of an unexported field
	var out bytes.Buffer
	for _, v := range []any{secret, &secret, c, &c, hidden, []Secret{secret}, map[string]Secret{"k": secret}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%p"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		for _, encode := range []func(any) ([]byte, error){json.Marshal, yaml.Marshal} {
			b, err := encode(v)
			if err != nil && v != any(hidden) {
				t.Errorf("encode %T: %v", v, err)
			}
			out.Write(b)
		}
		for _, h := range []slog.Handler{slog.NewJSONHandler(&out, nil), slog.NewTextHandler(&out, nil)} {
			slog.New(h).Info("message", "value", v)
		}
	}
	fmt.Fprintln(&out, fmt.Errorf("login: %v", secret))
	for _, leak := range []string{password, fmt.Sprintf("%x", password), fmt.Sprintf("%X", password), "104 117 110 116 101 114"} {
		if strings.Contains(out.String(), leak) {
			t.Errorf("%q is in the output:\n%s", leak, out.String())
		}
	}
	if !strings.Contains(out.String(), redacted) {
		t.Error("nothing says that a secret was redacted")
	}
}

func TestSecret_EmptyIsNoSecret(t *testing.T) {
	if s := fmt.Sprint(Secret{}); s != "" {
		t.Errorf("no secret prints as %q", s)
	}
	if !NewSecret("a").Equal(NewSecret("a")) || NewSecret("a").Equal(Secret{}) {
		t.Error("Equal does not compare the texts")
	}
}

// TestParse_HostileFilesEndSoon feeds what costs parsers most. An eighth of the largest file is enough to see anything
// that grows faster than the file.
func TestParse_HostileFilesEndSoon(t *testing.T) {
	fill := func(s string) string { return strings.Repeat(s, maxFile/8/len(s)) }
	lines := func(s string) string { return fill(strings.Repeat(s, (maxLine-10)/len(s)) + "\n") }
	for name, text := range map[string]string{
		"brackets":           lines("["),
		"braces":             lines("{a: "),
		"dashes":             lines("- "),
		"question marks":     lines("? "),
		"colons":             lines(": "),
		"flow entries":       "{" + lines("a,"),
		"flow entries in []": "services: [" + lines("a, ") + "]",
		"anchors":            lines("&a "),
		"aliases":            "a: &a x\n" + fill("b: *a\n"),
		"tags":               lines("!!str "),
		"keys twice":         fill("node: n1\n"),
		"unknown keys":       fill("some_unknown_key: 1\n"),
		"nulls":              "services:\n" + fill("  -\n"),
		"documents":          fill("---\n"),
		"quotes":             lines(`"\n`),
		"comments":           lines("# "),
		"text":               fill("lorem ipsum\n"),
		"billion laughs":     billionLaughs(),
		"alias of itself":    "services: &a [*a, *a]\n",
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			if _, err := Parse(name, []byte(text)); err == nil {
				t.Error("was accepted")
			}
			if took := time.Since(began); took > 10*time.Second { // some 0.1 s on an idle machine
				t.Errorf("took %v", took)
			}
		})
	}
}

func billionLaughs() string {
	var b strings.Builder
	b.WriteString("l0: &l0 [x]\n")
	for i := range 12 {
		fmt.Fprintf(&b, "l%d: &l%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*l%d, ", i), 10), ", "))
	}
	b.WriteString("services: *l12\n")
	return b.String()
}

func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/*.yaml", "../../packaging/*.yaml", "../../packaging/examples/*/*.yaml"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			f.Fatal(err)
		}
		for _, name := range files {
			data, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Add([]byte(least + patroni))
	f.Add([]byte("a: &a [*a]\n---\n%YAML 1.1\n<<: !!map {? [x] : y}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("fuzz", data)
		if err == nil {
			if err := c.Validate(); err != nil {
				t.Errorf("accepted, but not valid: %v", err)
			}
			c.Spec()
			return
		}
		ps, ok := errors.AsType[Problems](err)
		if !ok || len(ps) == 0 {
			t.Fatalf("error is a %T: %v", err, err)
		}
		lines := bytes.Count(data, []byte("\n")) + 1
		for _, p := range ps {
			if p.Line < 0 || p.Line > lines || p.Message == "" || strings.ContainsAny(p.String(), "\x00\x1b\r\n") {
				t.Errorf("problem %+v in a file of %d lines", p, lines)
			}
		}
	})
}

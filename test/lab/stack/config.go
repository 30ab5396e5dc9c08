package stack

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	_ "embed"
	"fmt"
	"text/template"
)

//go:embed files/patroni.yml.tmpl
var patroniText string

//go:embed files/haproxy.cfg.tmpl
var haproxyText string

//go:embed files/restore.sh
var restoreScript string

// secrets are made anew for every stack and live only inside its containers.
type secrets struct{ Superuser, Replication, Rewind, App string }

func newSecrets() secrets {
	return secrets{Superuser: rand.Text(), Replication: rand.Text(), Rewind: rand.Text(), App: rand.Text()}
}

func (s *Stack) patroniConfig(n Node, t Timings, pw secrets) ([]byte, error) {
	var etcd []string
	for _, e := range s.Of(Etcd) {
		etcd = append(etcd, e.Addr.String())
	}
	return render("patroni.yml", patroniText, map[string]any{
		"Scope": Scope, "Namespace": Namespace, "Member": n.Member, "Addr": n.Addr.String(), "Subnet": s.subnet.String(),
		"Etcd": etcd, "Timings": t, "Superuser": pw.Superuser, "Replication": pw.Replication, "Rewind": pw.Rewind,
	})
}

func (s *Stack) haproxyConfig() ([]byte, error) {
	return render("haproxy.cfg", haproxyText, map[string]any{"Servers": s.Of(Postgres)})
}

func render(name, text string, data any) ([]byte, error) {
	t, err := template.New(name).Option("missingkey=error").Parse(text)
	if err != nil {
		return nil, fmt.Errorf("parse template %s: %w", name, err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		return nil, fmt.Errorf("render %s: %w", name, err)
	}
	return b.Bytes(), nil
}

// file is one file to be put into a container.
type file struct {
	Path  string // absolute
	Mode  int64
	Owner string // user and group name, root where empty
	Data  []byte
}

// archive packs files for `tar -x` inside a container, which resolves owners by name there.
func archive(files []file) (*bytes.Buffer, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.Path[1:], Mode: f.Mode, Size: int64(len(f.Data)), Uname: f.Owner, Gname: f.Owner, Typeflag: tar.TypeReg, Format: tar.FormatGNU}
		if f.Owner == "" {
			h.Uname, h.Gname = "root", "root"
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("pack %s: %w", f.Path, err)
		}
		if _, err := w.Write(f.Data); err != nil {
			return nil, fmt.Errorf("pack %s: %w", f.Path, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("finish archive: %w", err)
	}
	return &b, nil
}

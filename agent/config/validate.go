package config

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// maxSocketPath is the room that the smallest sockaddr_un has for a path (104 bytes on darwin, with the final NUL).
const maxSocketPath = 103

// The grammars. Names become parts of etcd keys and of command lines: neither a leading dot nor a leading hyphen is
// worth the surprise.
var (
	nameGrammar      = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$`)
	namespaceGrammar = regexp.MustCompile(`^(/[A-Za-z0-9_-][A-Za-z0-9_.-]*){1,8}$`)
	hostGrammar      = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?$`)
)

// Validate returns everything that is wrong with the values as [Problems] with paths but without lines, or nil. It
// opens no file.
func (c Config) Validate() error {
	var ps Problems
	c.validate(func(path, message string) { ps = append(ps, Problem{Path: path, Message: message}) })
	return ps.err()
}

// checker collects complaints about one section.
type checker struct {
	report func(path, message string)
	prefix string // path of the section, with the final dot
}

func (k checker) bad(key, format string, args ...any) {
	k.report(k.prefix+key, fmt.Sprintf(format, args...))
}

// need reports a missing value, and whether there is one.
func (k checker) need(key, value, what string) bool {
	if value == "" {
		k.bad(key, "is required: %s", what)
	}
	return value != ""
}

func (k checker) name(key, value, what string) {
	if k.need(key, value, what) && !nameGrammar.MatchString(value) {
		k.bad(key, "%s must be 1 to 63 letters, digits, '_', '.' or '-', and begin with none of the last two",
			strconv.Quote(clip(value)))
	}
}

// path does not repeat the value: somebody will put the password itself where the name of its file belongs.
func (k checker) path(key, value string) {
	if value != "" && !isPath(value) {
		k.bad(key, "must be an absolute path without '.', '..', '//' or a trailing '/'")
	}
}

// isPath reports whether a value is an absolute, clean, printable path below the root.
func isPath(s string) bool {
	return len(s) > 1 && len(s) <= 4096 && filepath.IsAbs(s) && filepath.Clean(s) == s && printable(s)
}

func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) })
}

// url reports what is wrong with an http or https URL that names a host and nothing below it. Its messages never
// repeat the value, which may hold a password where it has no business.
func (k checker) url(key, value string) (scheme string) {
	u, err := url.Parse(value)
	switch {
	case err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https"):
		k.bad(key, "must be a URL such as http://192.0.2.1:2379")
		return ""
	case u.User != nil:
		k.bad(key, "must not hold a user or password")
	case (u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.Fragment != "" || u.ForceQuery:
		k.bad(key, "must end after the host and port")
	case !isHost(u.Hostname()) || !isPort(u):
		k.bad(key, "must name a host or address, and a port from 1 to 65535")
	}
	return u.Scheme
}

func isHost(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil || hostGrammar.MatchString(s)
}

func isPort(u *url.URL) bool {
	if u.Port() == "" {
		return !strings.HasSuffix(u.Host, ":")
	}
	n, err := strconv.ParseUint(u.Port(), 10, 16)
	return err == nil && n > 0
}

func (c Config) validate(report func(path, message string)) {
	k := checker{report: report}
	k.name("node", c.Node, "the name of this machine")
	k.name("scope", c.Scope, "the name of the Patroni cluster")
	if c.Scope == node.AllScopes {
		k.bad("scope", "%q is not possible: orders to the agents of all clusters are kept under that name in etcd", c.Scope)
	}
	if k.need("state_dir", c.StateDir, "where the journal is kept") {
		k.path("state_dir", c.StateDir)
	}
	c.Etcd.validate(checker{report, "etcd."})
	if k.need("api.socket", c.API.Socket, "where the agent answers its command line") {
		k.path("api.socket", c.API.Socket)
		if len(c.API.Socket) > maxSocketPath {
			k.bad("api.socket", "is longer than a socket's path may be (%d bytes)", maxSocketPath)
		}
	}
	c.Policy.validate(checker{report, "policy."}, false)
	for i, s := range c.Services {
		s.validate(checker{report, fmt.Sprintf("services[%d].", i)})
	}
	c.validateDocker(k)
	c.Incus.validate(checker{report, "incus."})
	c.validateUnique(k)
	c.validateChains(k)
}

func (c Config) validateDocker(k checker) {
	if h := c.Docker.Host; h != "" && !isDockerHost(h) {
		k.bad("docker.host", "must be unix:///PATH of the engine's socket, or http://HOST:PORT of a proxy that filters its calls")
	}
}

func (i Incus) validate(k checker) {
	if k.need("socket", i.Socket, "the unix socket of the Incus daemon") {
		k.path("socket", i.Socket)
	}
	k.name("project", i.Project, "the project of the instances")
}

func isDockerHost(s string) bool {
	if path, ok := strings.CutPrefix(s, "unix://"); ok {
		return isPath(path)
	}
	address, ok := strings.CutPrefix(s, "http://")
	return ok && isAddress(address)
}

// isAddress reports whether a value is host:port.
func isAddress(s string) bool {
	host, port, err := net.SplitHostPort(s)
	n, portErr := strconv.ParseUint(port, 10, 16)
	return err == nil && portErr == nil && n > 0 && isHost(host)
}

func (e Etcd) validate(k checker) {
	if len(e.Endpoints) == 0 {
		k.bad("endpoints", "is required: the client URLs of etcd, such as [http://192.0.2.1:2379]")
	}
	schemes := map[string]bool{}
	for i, endpoint := range e.Endpoints {
		key := fmt.Sprintf("endpoints[%d]", i)
		if scheme := k.url(key, endpoint); scheme != "" {
			schemes[scheme] = true
		}
		if before := slices.Index(e.Endpoints, endpoint); before < i {
			k.bad(key, "is the same as etcd.endpoints[%d]", before)
		}
	}
	if len(schemes) > 1 {
		k.bad("endpoints", "must be all http or all https")
	}
	if !namespaceGrammar.MatchString(e.Namespace) {
		k.bad("namespace", "%s must begin with '/', not end with it, and hold only letters, digits, '_', '.', '-' and '/'; "+
			"Patroni's default is /service", strconv.Quote(clip(e.Namespace)))
	}
	e.TLS.validate(checker{k.report, k.prefix + "tls."})
	if e.TLS != (TLS{}) && len(schemes) == 1 && schemes["http"] {
		k.bad("tls", "is set, but the endpoints are http; use https or remove it")
	}
	if len(e.Username) > 255 || !printable(e.Username) {
		k.bad("username", "must be at most 255 printable characters")
	}
	k.path("password_file", e.PasswordFile)
	switch {
	case e.Username != "" && e.PasswordFile == "":
		k.bad("password_file", "is required with a username")
	case e.Username == "" && e.PasswordFile != "":
		k.bad("username", "is required with a password_file")
	}
}

func (t TLS) validate(k checker) {
	k.path("ca_file", t.CAFile)
	k.path("cert_file", t.CertFile)
	k.path("key_file", t.KeyFile)
	switch {
	case t.CertFile != "" && t.KeyFile == "":
		k.bad("key_file", "is required with a cert_file")
	case t.CertFile == "" && t.KeyFile != "":
		k.bad("cert_file", "is required with a key_file")
	}
	if t.ServerName != "" && !isHost(t.ServerName) {
		k.bad("server_name", "must be a host name or an address")
	}
}

// validate checks the modes; a service's may be empty.
func (p Policy) validate(k checker, optional bool) {
	for _, f := range []struct {
		key  string
		mode node.Mode
	}{{"adjust", p.Adjust}, {"revive", p.Revive}, {"disrupt", p.Disrupt}, {"expedite", p.Expedite}} {
		if f.mode != "" || !optional {
			k.mode(f.key, f.mode)
		}
	}
	for _, code := range slices.Sorted(maps.Keys(p.Findings)) {
		if !slices.Contains(node.Codes(), code) {
			k.bad(join("findings", string(code)), "is not a finding; findings: %s", strings.Join(findingNames(), ", "))
			continue
		}
		k.mode("findings."+string(code), p.Findings[code])
	}
}

// mode reports a value that is no mode.
func (k checker) mode(key string, m node.Mode) {
	allowed := strings.Join(texts(node.Modes()), ", ")
	if m == "" {
		k.bad(key, "is required; allowed: %s", allowed)
	} else if !slices.Contains(node.Modes(), m) {
		k.bad(key, "%s is not a mode; allowed: %s", strconv.Quote(clip(string(m))), allowed)
	}
}

// findingNames returns the codes of all findings.
func findingNames() []string { return texts(node.Codes()) }

func texts[T ~string](values []T) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = string(v)
	}
	return out
}

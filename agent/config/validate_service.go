package config

import (
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pgpatrol/pgpatrol/agent/node"
	"github.com/pgpatrol/pgpatrol/plugins/probe"
	"github.com/pgpatrol/pgpatrol/plugins/proxy"
)

// validateUnique refuses two services that are the same thing.
func (c Config) validateUnique(k checker) {
	for _, f := range []struct {
		key   string
		value func(Service) string
	}{
		{"name", func(s Service) string { return s.Name }},
		{"member", func(s Service) string { return s.Member }},
		{"api", func(s Service) string { return strings.TrimSuffix(s.API, "/") }},
		{"data_dir", Service.place},
		{"url", func(s Service) string { return strings.TrimSuffix(s.URL, "/") }},
		{"listen", func(s Service) string { return s.Listen }},
		{"manager", func(s Service) string { manager, unit := s.Manager.Of(); return strings.Trim(manager+" "+unit, " ") }},
	} {
		first := map[string]int{}
		for i, s := range c.Services {
			v := f.value(s)
			if before, twice := first[v]; twice && v != "" {
				k.bad(fmt.Sprintf("services[%d].%s", i, f.key), "is the same as services[%d].%s", before, f.key)
				continue
			}
			first[v] = i
		}
	}
}

// place is where the data directory is, empty if there is none: in every instance the same path is another one.
func (s Service) place() string {
	if s.DataDir == "" || s.Manager.Incus == "" {
		return s.DataDir
	}
	return s.Manager.Incus + ":" + s.DataDir
}

// validateChains checks what is behind forwarders: services of this file, each once, and a machine only at the end. A machine
// that is behind no forwarder would never be restarted, and somebody meant something by it.
func (c Config) validateChains(k checker) {
	kinds, last := map[string]node.Kind{}, map[string]bool{}
	for _, s := range c.Services {
		kinds[s.Name] = node.Kind(s.Kind)
	}
	for i, s := range c.Services {
		for j, name := range s.Behind {
			path := fmt.Sprintf("services[%d].behind[%d]", i, j)
			end := j == len(s.Behind)-1
			switch kind, known := kinds[name]; {
			case !known:
				k.bad(path, "%s is not the name of a service in this file", strconv.Quote(clip(name)))
			case slices.Index(s.Behind, name) < j:
				k.bad(path, "is named twice")
			case kind == node.KindPatroni || kind == node.KindForwarder:
				k.bad(path, "must be of kind %s, %s or %s", node.KindEtcd, node.KindGeneric, node.KindMachine)
			case kind == node.KindMachine && !end:
				k.bad(path, "is of kind %s, which everything else is in: it must be the last", node.KindMachine)
			}
			last[name] = last[name] || end
		}
	}
	for i, s := range c.Services {
		if s.Kind == string(node.KindMachine) && !last[s.Name] {
			k.bad(fmt.Sprintf("services[%d].kind", i), "%s is for the last service that a forwarder names in behind", node.KindMachine)
		}
	}
}

func (s Service) validate(k checker) {
	k.name("name", s.Name, "what you call it")
	kinds := strings.Join(texts(node.Kinds()), ", ")
	if k.need("kind", s.Kind, "supported: "+kinds) && !slices.Contains(node.Kinds(), node.Kind(s.Kind)) {
		// Nothing more can be said of a kind that is not known.
		k.bad("kind", "%s is not supported; supported: %s", strconv.Quote(clip(s.Kind)), kinds)
		return
	}
	switch node.Kind(s.Kind) {
	case node.KindPatroni:
		s.validatePatroni(k)
	case node.KindEtcd:
		s.validateEtcd(k)
	case node.KindForwarder:
		s.validateForwarder(k)
	case node.KindHAProxy:
		s.validateHAProxy(k)
	case node.KindGeneric, node.KindMachine:
		s.Check.validate(checker{k.report, k.prefix + "check."}, k)
	}
	s.validateForeign(k)
	s.Manager.validate(checker{k.report, k.prefix + "manager."}, k, node.Kind(s.Kind))
	s.Policy.validate(checker{k.report, k.prefix + "policy."}, true)
}

func (s Service) validatePatroni(k checker) {
	k.name("member", s.Member, "Patroni's name for this node")
	if k.need("api", s.API, "the URL of Patroni's REST API, such as http://192.0.2.1:8008") {
		k.url("api", s.API)
	}
	if k.need("data_dir", s.DataDir, "PostgreSQL's data directory") {
		k.path("data_dir", s.DataDir)
	}
	if k.need("config", s.Config, "Patroni's configuration file") {
		k.path("config", s.Config)
	}
	k.path("executable", s.Executable)
	k.path("log_file", s.LogFile)
	k.path("password_file", s.PasswordFile)
	s.validateDSN(k)
}

func (s Service) validateEtcd(k checker) {
	if k.need("url", s.URL, "the client URL of the member on this machine, such as http://127.0.0.1:2379") {
		k.url("url", s.URL)
	}
	for i, p := range s.Peers {
		key := fmt.Sprintf("peers[%d]", i)
		k.url(key, p)
		if slices.Index(s.Peers, p) < i || p == s.URL {
			k.bad(key, "is named twice: peers are the other members, each once")
		}
	}
	k.identity(s.Identity)
}

func (s Service) validateForwarder(k checker) {
	for _, f := range []struct{ key, value, what string }{
		{"listen", s.Listen, "the host:port on which it listens, such as 192.0.2.1:2379"},
		{"to", s.To, "the host:port to which it forwards, such as 127.0.0.1:2379"},
	} {
		if k.need(f.key, f.value, f.what) && !isAddress(f.value) {
			k.bad(f.key, "must be a host or address and a port, such as 192.0.2.1:2379")
		}
	}
	protocols := texts(probe.Protocols())
	if k.need("protocol", s.Protocol, "what it carries: "+strings.Join(protocols, ", ")) && !slices.Contains(protocols, s.Protocol) {
		k.bad("protocol", "%s is not supported; supported: %s", strconv.Quote(clip(s.Protocol)), strings.Join(protocols, ", "))
	}
	if s.Identity != "" && s.Protocol != string(probe.ProtocolEtcd) {
		k.bad("identity", "is told by protocol %s only", probe.ProtocolEtcd)
	}
	k.identity(s.Identity)
}

func (s Service) validateHAProxy(k checker) {
	if k.need("socket", s.Socket, "its runtime socket, such as /run/haproxy/admin.sock, of level admin") && !isPath(s.Socket) && !isAddress(s.Socket) {
		k.bad("socket", "must be an absolute path, or a host or address and a port")
	}
	if k.need("backend", s.Backend, "the backend that leads to the primary") && !proxy.ValidName(s.Backend) {
		k.bad("backend", "%s is not the name of a backend", strconv.Quote(clip(s.Backend)))
	}
	stands := map[string]string{}
	for _, server := range slices.Sorted(maps.Keys(s.Members)) {
		member, key := s.Members[server], join("members", server)
		if !proxy.ValidName(server) {
			k.bad(key, "%s is not the name of a server", strconv.Quote(clip(server)))
		}
		k.name(key, member, "Patroni's name for the member")
		if other, ok := stands[member]; ok {
			k.bad(key, "stands for %s, as %s does", member, other)
		}
		stands[member] = server
	}
}

// identityGrammar is what etcdctl prints: the cluster's and the member's id in hexadecimal.
var identityGrammar = regexp.MustCompile(`^[0-9a-f]{1,16}/[0-9a-f]{1,16}$`)

func (k checker) identity(s string) {
	if s != "" && !identityGrammar.MatchString(s) {
		k.bad("identity", "must be CLUSTER/MEMBER in hexadecimal, as `etcdctl endpoint status -w json` and `pgpatrol status` show them")
	}
}

func (c Check) validate(k, service checker) {
	set := 0
	for _, is := range []bool{c.TCP != "", c.HTTP != "", len(c.Command) > 0} {
		if is {
			set++
		}
	}
	switch {
	case set == 0:
		service.bad("check", "is required: how the service shows that it works, such as {tcp: 127.0.0.1:6432}")
	case set > 1:
		service.bad("check", "must be one of tcp, http and command")
	}
	if c.TCP != "" && !isAddress(c.TCP) {
		k.bad("tcp", "must be a host or address and a port, such as 127.0.0.1:6432")
	}
	if u, err := url.Parse(c.HTTP); c.HTTP != "" && (err != nil || u.User != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || !isHost(u.Hostname()) || !isPort(u)) {
		k.bad("http", "must be a URL without user or password, such as http://127.0.0.1:8404/health")
	}
	if len(c.Command) > 0 && !isPath(c.Command[0]) {
		k.bad("command", "must begin with the absolute path of a program; there is no shell")
	}
}

// validateForeign refuses what belongs to another kind: it would be ignored, and somebody meant something by it.
func (s Service) validateForeign(k checker) {
	for _, f := range []struct {
		key   string
		set   bool
		kinds []node.Kind
	}{
		{"member", s.Member != "", []node.Kind{node.KindPatroni}},
		{"api", s.API != "", []node.Kind{node.KindPatroni}},
		{"data_dir", s.DataDir != "", []node.Kind{node.KindPatroni}},
		{"config", s.Config != "", []node.Kind{node.KindPatroni}},
		{"executable", s.Executable != "", []node.Kind{node.KindPatroni}},
		{"dsn", s.DSN != "", []node.Kind{node.KindPatroni}},
		{"password_file", s.PasswordFile != "", []node.Kind{node.KindPatroni}},
		{"log_file", s.LogFile != "", []node.Kind{node.KindPatroni}},
		{"url", s.URL != "", []node.Kind{node.KindEtcd}},
		{"peers", len(s.Peers) > 0, []node.Kind{node.KindEtcd}},
		{"identity", s.Identity != "", []node.Kind{node.KindEtcd, node.KindForwarder}},
		{"listen", s.Listen != "", []node.Kind{node.KindForwarder}},
		{"to", s.To != "", []node.Kind{node.KindForwarder}},
		{"protocol", s.Protocol != "", []node.Kind{node.KindForwarder}},
		{"check", s.Check.TCP != "" || s.Check.HTTP != "" || len(s.Check.Command) > 0, []node.Kind{node.KindGeneric, node.KindMachine}},
		{"socket", s.Socket != "", []node.Kind{node.KindHAProxy}},
		{"backend", s.Backend != "", []node.Kind{node.KindHAProxy}},
		{"members", len(s.Members) > 0, []node.Kind{node.KindHAProxy}},
		{"behind", len(s.Behind) > 0, []node.Kind{node.KindForwarder}},
	} {
		if f.set && !slices.Contains(f.kinds, node.Kind(s.Kind)) {
			k.bad(f.key, "is for kind %s, not for %s", strings.Join(texts(f.kinds), " and "), s.Kind)
		}
	}
}

var passwordSetting = regexp.MustCompile(`(?i)(^|[\s?&])(password|sslpassword)\s*=`)

// validateDSN refuses a password in the DSN: it would be in every copy of the file and in every error of the driver.
func (s Service) validateDSN(k checker) {
	switch {
	case s.DSN == "" && s.PasswordFile != "":
		k.bad("dsn", "is required with a password_file")
		return
	case s.DSN == "":
		return
	case passwordSetting.MatchString(s.DSN):
		k.bad("dsn", "must not hold a password; put it in a file and name that in password_file")
		return
	case len(s.DSN) > 1024 || !printable(s.DSN):
		k.bad("dsn", "must be at most 1024 printable characters")
		return
	}
	if !strings.Contains(s.DSN, "://") {
		if !strings.Contains(s.DSN, "=") {
			k.bad("dsn", "must be a URL such as postgres://USER@/postgres or settings such as user=USER dbname=postgres")
		}
		return
	}
	u, err := url.Parse(s.DSN)
	if err != nil || (u.Scheme != "postgres" && u.Scheme != "postgresql") {
		k.bad("dsn", "must begin with postgres:// or postgresql:// and be a valid URL")
		return
	}
	_, set := u.User.Password()
	for key := range u.Query() { // as libpq sees it, percent signs resolved
		set = set || strings.HasSuffix(strings.ToLower(key), "password")
	}
	if set {
		k.bad("dsn", "must not hold a password; put it in a file and name that in password_file")
	}
}

// The names by which managers know services. They become parts of URLs, paths and command lines.
var (
	unitGrammar      = regexp.MustCompile(`^[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]+)?\.service$`)
	containerGrammar = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)
	initGrammar      = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}$`)
	instanceGrammar  = regexp.MustCompile(`^[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)
	launchdGrammar   = regexp.MustCompile(`^(system|(gui|user)/[0-9]{1,10})/[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
)

func (m Manager) validate(k, service checker, kind node.Kind) {
	var set []string
	for _, one := range m.all() {
		if one.unit != "" {
			set = append(set, one.name)
		}
	}
	switch {
	case len(set) == 0:
		service.bad("manager", "is required: what runs the service, such as {systemd: patroni.service} or {docker: etcd}")
	case m.Incus != "" && len(set) == 2 && m.Systemd == "":
		service.bad("manager", "%s is not reached inside an instance; systemd is", set[0])
	case len(set) > 1 && (m.Incus == "" || len(set) > 2):
		service.bad("manager", "must be one of %s", strings.Join(set, " and "))
	case kind == node.KindPatroni && set[0] != "systemd":
		service.bad("manager", "a Patroni is looked after under systemd only, here or inside an Incus instance")
	}
	m.validateSystemd(k)
	for _, f := range []struct {
		key, value, what string
		grammar          *regexp.Regexp
	}{
		{"docker", m.Docker, "the name of a container", containerGrammar},
		{"openrc", m.OpenRC, "the name of a service below /etc/init.d", initGrammar},
		{"launchd", m.Launchd, "a domain and a label, such as system/com.example.socat or gui/501/com.example.socat", launchdGrammar},
		{"procd", m.Procd, "the name of a service below /etc/init.d", initGrammar},
		{"incus", m.Incus, "the name of an instance", instanceGrammar},
	} {
		if f.value != "" && !f.grammar.MatchString(f.value) {
			k.bad(f.key, "%s must be %s", strconv.Quote(clip(f.value)), f.what)
		}
	}
}

func (m Manager) validateSystemd(k checker) {
	switch {
	case m.Systemd == "", len(m.Systemd) <= 255 && unitGrammar.MatchString(m.Systemd):
	case !strings.Contains(m.Systemd, ".service") && unitGrammar.MatchString(m.Systemd+".service"):
		k.bad("systemd", "%s must be the whole name; did you mean %s.service?", strconv.Quote(clip(m.Systemd)), clip(m.Systemd))
	default:
		k.bad("systemd", "%s must be the name of a service unit, such as patroni.service", strconv.Quote(clip(m.Systemd)))
	}
}

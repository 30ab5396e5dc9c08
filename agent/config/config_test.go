package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// least is the shortest valid configuration; tests append to it.
const least = "node: n1\nscope: demo\netcd: {endpoints: [http://192.0.2.1:2379]}\n"

// patroni is the shortest valid service; tests append keys at its indentation.
const patroni = `services:
  - name: patroni
    kind: patroni
    member: n1
    api: http://192.0.2.1:8008
    data_dir: /var/lib/postgresql/17/main
    config: /etc/patroni.yml
    manager: {systemd: patroni.service}
`

func mustParse(t testing.TB, text string) Config {
	t.Helper()
	c, err := Parse("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestParse_LeastIsDefault(t *testing.T) {
	want := Default()
	want.Node, want.Scope, want.Etcd.Endpoints = "n1", "demo", []string{"http://192.0.2.1:2379"}
	if diff := cmp.Diff(want, mustParse(t, least)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestParse_WindowsLineEndsAndByteOrderMark(t *testing.T) {
	text := "\xef\xbb\xbf" + strings.ReplaceAll(least+patroni, "\n", "\r\n")
	if diff := cmp.Diff(mustParse(t, least+patroni), mustParse(t, text)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestParse_ServicePolicyOnTopOfNodes(t *testing.T) {
	c := mustParse(t, least+"policy: {revive: auto, adjust: off}\n"+patroni+"    policy: {disrupt: auto}\n")
	own := node.Policy{Adjust: node.ModeOff, Revive: node.ModeAuto, Disrupt: node.ModeAuto, Expedite: node.ModeOff}
	whole := own
	whole.Disrupt = node.ModeObserve
	want := node.Spec{
		Node: "n1", Scope: "demo", Policy: whole,
		Patroni: []node.PatroniSpec{{Service: "patroni", Member: "n1", Unit: "patroni.service", Policy: own}},
	}
	if diff := cmp.Diff(want, c.Spec()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// A service's findings are put over the node's, and neither changes the other.
func TestParse_FindingsOfAServiceOnTopOfNodes(t *testing.T) {
	c := mustParse(t, least+"policy: {disrupt: ask, findings: {PATRONI_HUNG: ask, ZOMBIE_PRIMARY: off}}\n"+patroni+
		"    policy: {findings: {PATRONI_HUNG: auto, REPLICA_DIVERGED: observe}}\n")
	want := map[node.Code]node.Mode{
		node.PatroniHung: node.ModeAuto, node.ZombiePrimary: node.ModeOff, node.ReplicaDiverged: node.ModeObserve,
	}
	for range 2 {
		spec := c.Spec()
		if diff := cmp.Diff(want, spec.Patroni[0].Policy.Findings); diff != "" {
			t.Errorf("service (-want +got)\n%s", diff)
		}
		if diff := cmp.Diff(map[node.Code]node.Mode{node.PatroniHung: node.ModeAsk, node.ZombiePrimary: node.ModeOff}, spec.Policy.Findings); diff != "" {
			t.Errorf("node (-want +got)\n%s", diff)
		}
		if spec.Policy.Disrupt != node.ModeAsk {
			t.Errorf("disrupt is %q", spec.Policy.Disrupt)
		}
	}
	if s := mustParse(t, least+patroni+"    policy: {findings: {PATRONI_HUNG: ask}}\n").Spec(); s.Patroni[0].Policy.For(node.ClassRevive, node.PatroniHung) != node.ModeAsk {
		t.Errorf("without findings of the node: %v", s.Patroni[0].Policy.Findings)
	}
}

func TestParse_TenMistakes(t *testing.T) {
	const name, golden = "testdata/ten-mistakes.yaml", "testdata/ten-mistakes.golden"
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse(filepath.Base(name), data)
	ps, ok := errors.AsType[Problems](err)
	if !ok {
		t.Fatalf("error is a %T, want Problems", err)
	}
	if diff := cmp.Diff(Config{}, c); diff != "" {
		t.Errorf("a refused configuration is not empty (-want +got)\n%s", diff)
	}
	if len(ps) != 10 {
		t.Errorf("%d problems, want 10", len(ps))
	}
	got := err.Error() + "\n"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if strings.Contains(got, "hunter2") {
		t.Error("a password is in the report")
	}
}

func TestParse_Problems(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       []string // problems without the file's name
	}{
		{"empty file", "", []string{"is empty; node, scope and etcd.endpoints are the least that it needs"}},
		{"only comments", "# nothing\n\n", []string{"is empty; node, scope and etcd.endpoints are the least that it needs"}},
		{"binary", "\x7fELF\x02\x01\x01", []string{"1:1: is not a text file: control character U+007F"}},
		{"not UTF-8", "node: n1\nscope: d\xe9mo\n", []string{"2:9: is not UTF-8 text: byte 0xe9"}},
		{"HTML", "<html><body>Moved</body></html>", []string{"1:1: must hold keys and values, not text"}},
		{"a list", "- node: n1\n", []string{"1:1: must hold keys and values, not a list"}},
		{"two documents", least + "---\n" + least, []string{"5:1: a second document begins here; only one is supported"}},
		{"syntax", "node: [n1\n", []string{"1:7: YAML: while parsing a flow sequence: did not find expected ',' or ']'"}},
		{"syntax does not quote the source", "etcd: {password_file: \"hunter2\n", []string{
			"1:23: YAML: while scanning a quoted scalar: found unexpected end of stream",
		}},
		{"anchor and alias", "node: &n n1\nscope: *n\netcd: {endpoints: [http://192.0.2.1:2379]}\n", []string{
			"1:7: node: anchors and aliases are not supported; write the value out",
			"2:8: scope: anchors and aliases are not supported; write the value out",
		}},
		{"merge key", least + "<<: {node: n2}\n", []string{
			"4:1: merge keys, anchors, aliases, tags and compound keys are not supported",
		}},
		{"tag", least + "state_dir: !!str /x\n", []string{`4:12: state_dir: tags are not supported; remove "!!str"`}},
		{"number for a name", "node: 42\nscope: demo\netcd: {endpoints: [http://192.0.2.1:2379]}\n", []string{
			"1:7: node: must be text, not a number; put it in quotes if it is meant so",
		}},
		{"list for a name", "node: [n1]\nscope: demo\netcd: {endpoints: [http://192.0.2.1:2379]}\n", []string{
			"1:7: node: must be text, not a list",
		}},
		{"text for a list", "node: n1\nscope: demo\netcd: {endpoints: http://192.0.2.1:2379}\n", []string{
			"3:19: etcd.endpoints: must be a list, not text",
		}},
		{"endless line", "node: " + strings.Repeat("n", maxLine), []string{"1:1025: has a line of more than 1024 characters"}},
		{"larger than a configuration", strings.Repeat("# nothing\n", 1<<20), []string{"is larger than 1024 KiB"}},
		{"unknown anchor", "node: *hunter2\n", []string{"YAML: the parser gave up; anchors and aliases are not supported"}},
		{"text for a section", "node: n1\nscope: demo\netcd: http://192.0.2.1:2379\n", []string{
			"3:7: etcd: must hold keys and values, not text",
		}},
		{"section without content", least + "policy:\n", []string{
			"4:8: policy: has no value; give it one or remove the key",
		}},
		{"list item without content", least + "services:\n  -\n", []string{
			"5:4: services[0]: has no value; give it one or remove the key",
		}},
		{"key given twice", least + "node: n2\n", []string{"4:1: node: is given twice, first on line 1"}},
		{"typo finds its key and does not miss it", "node: n1\nscop: demo\netcd: {endpoints: [http://192.0.2.1:2379]}\n", []string{
			"2:1: scop: unknown key; did you mean scope?",
		}},
		{"other spelling of a key", least + "stateDir: /x\n", []string{"4:1: stateDir: unknown key; did you mean state_dir?"}},
		{"unknown key", least + "policy: {destroy: auto}\n", []string{
			"4:10: policy.destroy: unknown key; supported here: adjust, revive, disrupt, expedite, findings",
		}},
		{"key with control characters", least + `"a\x1b[31m": 1` + "\n", []string{
			`4:1: "a\x1b[31m": unknown key; supported here: node, scope, state_dir, etcd, api, policy, docker, incus, services`,
		}},
		{"mode of a finding", least + "policy: {findings: {PATRONI_HUNG: aks}}\n", []string{
			`4:35: policy.findings.PATRONI_HUNG: "aks" is not a mode; allowed: off, observe, ask, auto`,
		}},
		{"finding with a typo", least + "policy: {findings: {patroni_hang: ask}}\n", []string{
			"4:21: policy.findings.patroni_hang: unknown key; did you mean PATRONI_HUNG?",
		}},
		{"unknown finding", least + "policy: {findings: {X: ask}}\n", []string{
			"4:21: policy.findings.X: unknown key; supported here: " + strings.Join(findingNames(), ", "),
		}},
		{"findings without a value", least + "policy: {findings: {PATRONI_HUNG: }}\n", []string{
			"4:35: policy.findings.PATRONI_HUNG: has no value; give it one or remove the key",
		}},
		{"findings as a list", least + "policy: {findings: [PATRONI_HUNG]}\n", []string{
			"4:20: policy.findings: must hold keys and values, not a list",
		}},
		{"finding given twice", least + patroni + "    policy: {findings: {PATRONI_HUNG: off, PATRONI_HUNG: ask}}\n", []string{
			"12:44: services[0].policy.findings.PATRONI_HUNG: is given twice, first on line 12",
		}},
		{"scope that is every scope", "node: n1\nscope: everything\netcd: {endpoints: [http://192.0.2.1:2379]}\n", []string{
			`2:8: scope: "everything" is not possible: orders to the agents of all clusters are kept under that name in etcd`,
		}},
		{"mode", least + "policy: {disrupt: yes}\n", []string{
			`4:19: policy.disrupt: "yes" is not a mode; allowed: off, observe, ask, auto`,
		}},
		{"name with a leading hyphen", "node: -n1\nscope: demo\netcd: {endpoints: [http://192.0.2.1:2379]}\n", []string{
			`1:7: node: "-n1" must be 1 to 63 letters, digits, '_', '.' or '-', and begin with none of the last two`,
		}},
		{"relative path", least + "state_dir: var/lib\n", []string{
			"4:12: state_dir: must be an absolute path without '.', '..', '//' or a trailing '/'",
		}},
		{"socket path too long", least + "api: {socket: /" + strings.Repeat("x", 103) + "}\n", []string{
			"4:15: api.socket: is longer than a socket's path may be (103 bytes)",
		}},
		{"no endpoints", "node: n1\nscope: demo\netcd: {endpoints: []}\n", []string{
			"3:19: etcd.endpoints: is required: the client URLs of etcd, such as [http://192.0.2.1:2379]",
		}},
		{"endpoints of two schemes, one twice", "node: n1\nscope: demo\netcd: {endpoints: [http://a:1, https://a:1, http://a:1]}\n", []string{
			"3:19: etcd.endpoints: must be all http or all https",
			"3:45: etcd.endpoints[2]: is the same as etcd.endpoints[0]",
		}},
		{"endpoint without a scheme, with a bad port", "node: n1\nscope: demo\netcd: {endpoints: [192.0.2.1:2379, http://a:99999]}\n", []string{
			"3:20: etcd.endpoints[0]: must be a URL such as http://192.0.2.1:2379",
			"3:36: etcd.endpoints[1]: must name a host or address, and a port from 1 to 65535",
		}},
		{"TLS over http, key without certificate", "node: n1\nscope: demo\netcd: {endpoints: [http://a:1], tls: {key_file: /k}}\n", []string{
			"3:38: etcd.tls: is set, but the endpoints are http; use https or remove it",
			"3:38: etcd.tls.cert_file: is required with a key_file",
		}},
		{"password file without user", "node: n1\nscope: demo\netcd: {endpoints: [http://a:1], password_file: hunter2}\n", []string{
			"3:7: etcd.username: is required with a password_file",
			"3:48: etcd.password_file: must be an absolute path without '.', '..', '//' or a trailing '/'",
		}},
		{"kind of service that is not known", least + "services: [{name: vip, kind: keepalived}]\n", []string{
			`4:30: services[0].kind: "keepalived" is not supported; supported: patroni, etcd, forwarder, haproxy, generic, machine`,
		}},
		{"member of etcd", least + `services:
  - name: etcd
    kind: etcd
    url: http://127.0.0.1
    peers: [http://192.0.2.1:2379, http://192.0.2.1:2379, tcp://192.0.2.2]
    identity: ABC
    listen: 192.0.2.3:2379
    manager: {docker: "etcd;rm", openrc: etcd}
`, []string{
			"8:36: services[0].peers[1]: is named twice: peers are the other members, each once",
			"8:59: services[0].peers[2]: must be a URL such as http://192.0.2.1:2379",
			"9:15: services[0].identity: must be CLUSTER/MEMBER in hexadecimal, as `etcdctl endpoint status -w json` and `pgpatrol status` show them",
			"10:13: services[0].listen: is for kind forwarder, not for etcd",
			"11:14: services[0].manager: must be one of docker and openrc",
			`11:23: services[0].manager.docker: "etcd;rm" must be the name of a container`,
		}},
		{"forwarder", least + `services:
  - name: forward
    kind: forwarder
    listen: 192.0.2.3
    to: 127.0.0.1:0
    protocol: smtp
    check: {tcp: 127.0.0.1:1}
    manager: {launchd: com.example.socat}
`, []string{
			"7:13: services[0].listen: must be a host or address and a port, such as 192.0.2.1:2379",
			"8:9: services[0].to: must be a host or address and a port, such as 192.0.2.1:2379",
			`9:15: services[0].protocol: "smtp" is not supported; supported: etcd, etcd-peer, http, postgres, tcp`,
			"10:12: services[0].check: is for kind generic and machine, not for forwarder",
			`11:24: services[0].manager.launchd: "com.example.socat" must be a domain and a label, such as system/com.example.socat or gui/501/com.example.socat`,
		}},
		{"generic", least + `docker: {host: tcp://192.0.2.1:2375}
services:
  - name: pooler
    kind: generic
    check: {tcp: 127.0.0.1, http: "http://user@127.0.0.1/", command: [pg_isready, -q]}
    manager: {procd: pooler}
`, []string{
			"4:16: docker.host: must be unix:///PATH of the engine's socket, or http://HOST:PORT of a proxy that filters its calls",
			"8:12: services[0].check: must be one of tcp, http and command",
			"8:18: services[0].check.tcp: must be a host or address and a port, such as 127.0.0.1:6432",
			"8:35: services[0].check.http: must be a URL without user or password, such as http://127.0.0.1:8404/health",
			"8:70: services[0].check.command: must begin with the absolute path of a program; there is no shell",
		}},
		{"Incus", least + `incus: {socket: incus.sock, project: "a/b"}
services:
  - name: instance
    kind: generic
    check: {tcp: "127.0.0.1:1"}
    manager: {incus: postgres_1}
  - {name: a, kind: generic, check: {tcp: "127.0.0.1:2"}, manager: {incus: etcd-jp1, docker: etcd}}
  - {name: b, kind: generic, check: {tcp: "127.0.0.1:3"}, manager: {incus: etcd-jp1, systemd: etcd}}
  - {name: c, kind: generic, check: {tcp: "127.0.0.1:4"}, manager: {incus: etcd-jp1, systemd: a.service, procd: b}}
`, []string{
			"4:17: incus.socket: must be an absolute path without '.', '..', '//' or a trailing '/'",
			`4:38: incus.project: "a/b" must be 1 to 63 letters, digits, '_', '.' or '-', and begin with none of the last two`,
			`9:22: services[0].manager.incus: "postgres_1" must be the name of an instance`,
			"10:68: services[1].manager: docker is not reached inside an instance; systemd is",
			`11:95: services[2].manager.systemd: "etcd" must be the whole name; did you mean etcd.service?`,
			"12:68: services[3].manager: must be one of systemd and procd and incus",
		}},
		{"chain of a forwarder", least + `services:
  - {name: forward, kind: forwarder, listen: "192.0.2.1:1", to: "127.0.0.1:1", protocol: tcp, behind: [vm, etcd, nobody, etcd, forward], manager: {systemd: f.service}}
  - {name: etcd, kind: etcd, url: "http://127.0.0.1:2379", behind: [vm], manager: {docker: etcd}}
  - {name: vm, kind: machine, check: {tcp: "127.0.0.1:2"}, manager: {launchd: gui/501/vm}}
`, []string{
			"5:104: services[0].behind[0]: is of kind machine, which everything else is in: it must be the last",
			"5:114: services[0].behind[2]: \"nobody\" is not the name of a service in this file",
			"5:122: services[0].behind[3]: is named twice",
			"5:128: services[0].behind[4]: must be of kind etcd, generic or machine",
			"6:68: services[1].behind: is for kind forwarder, not for etcd",
		}},
		{"machine that nobody needs", least + `services:
  - {name: vm, kind: machine, check: {tcp: "127.0.0.1:2"}, manager: {launchd: gui/501/vm}}
`, []string{"5:22: services[0].kind: machine is for the last service that a forwarder names in behind"}},
		{"Patroni under another manager", least + strings.Replace(patroni, "systemd: patroni.service", "openrc: patroni", 1), []string{
			"11:14: services[0].manager: a Patroni is looked after under systemd only, here or inside an Incus instance",
		}},
		{"service without anything", least + "services: [{}]\n", []string{
			"4:12: services[0].kind: is required: supported: patroni, etcd, forwarder, haproxy, generic, machine",
			"4:12: services[0].manager: is required: what runs the service, such as {systemd: patroni.service} or {docker: etcd}",
			"4:12: services[0].name: is required: what you call it",
		}},
		{"unit without suffix", least + strings.Replace(patroni, "patroni.service", "patroni", 1), []string{
			`11:24: services[0].manager.systemd: "patroni" must be the whole name; did you mean patroni.service?`,
		}},
		{"template unit", least + strings.Replace(patroni, "patroni.service", "patroni@.service", 1), []string{
			`11:24: services[0].manager.systemd: "patroni@.service" must be the name of a service unit, such as patroni.service`,
		}},
		{"same service twice", least + patroni + strings.TrimPrefix(patroni, "services:\n"), []string{
			"12:11: services[1].name: is the same as services[0].name",
			"14:13: services[1].member: is the same as services[0].member",
			"15:10: services[1].api: is the same as services[0].api",
			"16:15: services[1].data_dir: is the same as services[0].data_dir",
			"18:14: services[1].manager: is the same as services[0].manager",
		}},
		{"DSN with a password", least + patroni + "    dsn: postgres://probe:hunter2@/postgres\n", []string{
			"12:10: services[0].dsn: must not hold a password; put it in a file and name that in password_file",
		}},
		{"DSN with a password as a setting", least + patroni + "    dsn: user=probe PassWord = hunter2\n", []string{
			"12:10: services[0].dsn: must not hold a password; put it in a file and name that in password_file",
		}},
		{"DSN with an escaped password setting", least + patroni + "    dsn: postgres://probe@/postgres?passw%6frd=hunter2\n", []string{
			"12:10: services[0].dsn: must not hold a password; put it in a file and name that in password_file",
		}},
		{"DSN of another database", least + patroni + "    dsn: mysql://probe@/postgres\n", []string{
			"12:10: services[0].dsn: must begin with postgres:// or postgresql:// and be a valid URL",
		}},
		{"password file without DSN", least + patroni + "    password_file: /etc/pgpatrol/probe\n", []string{
			"5:5: services[0].dsn: is required with a password_file",
		}},
		{"service policy", least + patroni + "    policy: {revive: yes}\n", []string{
			`12:22: services[0].policy.revive: "yes" is not a mode; allowed: off, observe, ask, auto`,
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Parse("", []byte(tc.text))
			ps, _ := errors.AsType[Problems](err)
			var got []string
			for _, p := range ps {
				got = append(got, strings.TrimPrefix(strings.TrimPrefix(p.String(), ":"), " "))
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if strings.Contains(strings.Join(got, "\n"), "hunter2") {
				t.Error("a password is in the report")
			}
		})
	}
}

func TestValidate_PathsWithoutLines(t *testing.T) {
	c := Default()
	c.Node, c.Scope = "n1", "demo"
	want := Problems{{Path: "etcd.endpoints", Message: "is required: the client URLs of etcd, such as [http://192.0.2.1:2379]"}}
	if diff := cmp.Diff(error(want), c.Validate()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestParse_AtMostAHundredProblems(t *testing.T) {
	_, err := Parse("x", []byte(least+strings.Repeat("zzzzzz: 1\n", 500)))
	ps, _ := errors.AsType[Problems](err)
	if got, want := len(ps), maxProblems+1; got != want {
		t.Fatalf("%d problems, want %d", got, want)
	}
	if got, want := ps[maxProblems].Message, "and 400 more problems"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNearest(t *testing.T) {
	words := []string{"data_dir", "password_file", "api", "dsn"}
	for got, want := range map[string]string{
		"dataDir": "data_dir", "data-dir": "data_dir", "datadri": "data_dir", "pasword_file": "password_file",
		"password": "", "ap": "api", "pai": "api", "zzz": "", "": "", strings.Repeat("data_dir", 100): "",
	} {
		if n := nearest(got, words); n != want {
			t.Errorf("nearest(%q) = %q, want %q", got, n, want)
		}
	}
}

func TestManager_Of(t *testing.T) {
	for _, c := range []struct {
		m             Manager
		manager, unit string
	}{
		{Manager{}, "", ""},
		{Manager{Systemd: "a.service"}, "systemd", "a.service"},
		{Manager{Incus: "postgres-1"}, "incus", "postgres-1"},
		{Manager{Incus: "postgres-1", Systemd: "patroni.service"}, "incus", "postgres-1/systemd/patroni.service"},
	} {
		if manager, unit := c.m.Of(); manager != c.manager || unit != c.unit {
			t.Errorf("%+v: got %q, %q", c.m, manager, unit)
		}
	}
}

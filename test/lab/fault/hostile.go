package fault

import (
	"context"
	_ "embed"
	"fmt"
	"strings"

	"github.com/pgpatrol/pgpatrol/test/lab/stack"
)

//go:embed files/hostile.py
var hostileScript string

// SpoiledScope is the copy of the stack's scope that the fault hostile-copy makes.
const SpoiledScope = "lab-copy"

// hostileFaults put things into etcd and onto nodes that no Patroni would. Settle removes the keys by their names.
func hostileFaults() []Fault {
	scope := stack.Namespace + "/" + stack.Scope + "/"
	return []Fault{
		{
			Name: "hostile-members", ID: "F104", Kind: stack.Etcd,
			Summary: "keys below members/ with control characters, half JSON, lies and 1 MB, that Patroni passes over",
			Do:      hostile("members", scope),
			Undo:    script(`etcdctl del --prefix ` + scope + `members/lab-`),
		},
		{
			Name: "hostile-copy", ID: "F104", Kind: stack.Etcd,
			Summary: "a copy of the scope, named " + SpoiledScope + ", with every key spoiled in its own way",
			Do:      hostile("copy", scope, stack.Namespace+"/"+SpoiledScope+"/"),
			Undo:    script(`etcdctl del --prefix ` + stack.Namespace + `/` + SpoiledScope + `/`),
		},
		{
			Name: "html-server", ID: "F104", Kind: stack.Postgres,
			Summary: "a web server on port 8090 that answers 503 and HTML to everything, as a proxy without servers does",
			Do:      background("html", htmlServer), Undo: script(killLeftOvers),
		},
		{
			Name: "mute-server", ID: "F104", Kind: stack.Postgres,
			Summary: "a listener on 127.0.0.1:2399 that accepts and never says a word; 192.0.2.1 becomes a black hole",
			Do:      Mute, Undo: script(killLeftOvers + `; ip route del blackhole 192.0.2.1/32`),
		},
	}
}

// Mute starts the listener of mute-server on a node of any kind: agents run beside HAProxy too.
func Mute(ctx context.Context, s *stack.Stack, n stack.Node) error {
	return steps(background("mute", muteServer), script(`ip route replace blackhole 192.0.2.1/32`))(ctx, s, n)
}

func hostile(args ...string) Func {
	return func(ctx context.Context, s *stack.Stack, n stack.Node) error {
		out, err := s.ExecInput(ctx, n, strings.NewReader(hostileScript), `python3 - "$@"`, args...)
		if err != nil {
			return fmt.Errorf("write hostile keys: %w: %s", err, out)
		}
		return nil
	}
}

// htmlServer closes each connection after its answer, so that a proxy's habit is kept.
const htmlServer = `import http.server
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"<html><body><h1>503 Service Unavailable</h1>\nNo server is available to handle this request.\n</body></html>\n"
        self.send_response(503); self.send_header("Content-Type", "text/html"); self.end_headers(); self.wfile.write(body)
    do_OPTIONS = do_HEAD = do_GET
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(("0.0.0.0", 8090), H).serve_forever()
`

// muteServer notes every connection in a file, for who counts them.
const muteServer = `import socket, time
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", 2399)); s.listen(64)
log, held = open("/run/lab/mute.log", "w", buffering=1), []
while True:
    held.append(s.accept()); log.write("%.3f\n" % time.time())
`

// background starts a Python program that Settle ends, and returns when it has opened its port.
func background(name, program string) Func {
	return script(`cat > /run/lab/serve-` + name + `.py <<'PY'
` + program + `PY
setsid python3 -P /run/lab/serve-` + name + `.py >/dev/null 2>&1 </dev/null &
echo $! >> /run/lab/pids
port=$(sed -n 's/.*", \([0-9]*\)).*/\1/p' /run/lab/serve-` + name + `.py | head -1)
for i in $(seq 50); do ss -Hltn "sport = :$port" | grep -q . && exit 0; sleep .1; done
echo "nothing listens on port $port"; exit 1`)
}

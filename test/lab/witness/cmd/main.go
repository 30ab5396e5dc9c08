// Command lab-witness runs inside the lab's containers. It ends when its standard input closes, because a signal to
// `docker exec` does not reach the program it started.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/pgpatrol/pgpatrol/test/lab/witness"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "lab-witness:", err)
		os.Exit(1)
	}
}

func run() error {
	node := flag.String("node", "", "name put on every record")
	id := flag.String("run", "", "write: name of the run")
	etcd := flag.String("etcd", "", "write: etcd client URLs; look: NAME=URL; comma separated")
	key := flag.String("leader-key", "", "write: Patroni's leader key")
	units := flag.String("units", "patroni.service", "watch, look: systemd units, comma separated")
	openrc := flag.String("openrc", "", "look: services of OpenRC, comma separated")
	containers := flag.String("containers", "", "look: NAME=CONTAINER, comma separated")
	memory := flag.String("memory", "", "look: NAME=CONTAINER whose main process is measured, comma separated")
	engine := flag.String("engine", "/var/run/docker.sock", "look: the engine's socket")
	rest := flag.String("rest", "", "watch: URL of Patroni's /liveness")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: lab-witness [flags] write|watch|look")
		flag.PrintDefaults()
	}
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // ends with the process: a read of the standard input cannot be interrupted
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()

	out := witness.NewOutput(os.Stdout, *node)
	switch flag.Arg(0) {
	case "watch":
		return witness.Watch(ctx, witness.WatchConfig{
			DSN:   "host=/var/run/postgresql user=postgres dbname=postgres sslmode=disable",
			Units: strings.Split(*units, ","),
			REST:  *rest,
		}, out)
	case "look":
		return witness.Look(ctx, witness.LookConfig{
			Units: list(*units), OpenRC: list(*openrc), Containers: pairs(*containers), Memory: pairs(*memory), Engine: *engine, Etcd: pairs(*etcd),
		}, out)
	case "write":
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error {
			return witness.Write(ctx, witness.WriteConfig{DSN: "host=127.0.0.1 port=5432 user=app dbname=app sslmode=disable", Run: *id}, out)
		})
		g.Go(func() error {
			return witness.Path(ctx, witness.PathConfig{HAProxySocket: "/run/haproxy-admin.sock", Etcd: strings.Split(*etcd, ","), LeaderKey: *key}, out)
		})
		return g.Wait()
	default:
		flag.Usage()
		return fmt.Errorf("unknown command %q", flag.Arg(0))
	}
}

// list splits a flag; an empty one has no parts.
func list(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}

// pairs splits a flag of KEY=VALUE.
func pairs(text string) map[string]string {
	m := map[string]string{}
	for _, p := range list(text) {
		k, v, _ := strings.Cut(p, "=")
		m[k] = v
	}
	return m
}

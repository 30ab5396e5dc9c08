// Command lab-gate is the filtering proxy before a Docker engine's socket in the lab's containers.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/pgpatrol/pgpatrol/test/lab/gate"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "lab-gate:", err)
		os.Exit(1)
	}
}

func run() error {
	engine := flag.String("engine", "/var/run/docker.sock", "the engine's socket")
	listen := flag.String("listen", "", "socket to listen on")
	names := flag.String("containers", "", "names that are let through, comma separated")
	refuse := flag.String("refuse", "", "file with orders to refuse, one a line; may come and go")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	_ = os.Remove(*listen) // of a run that was killed
	l, err := net.Listen("unix", *listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s := &http.Server{
		Handler: gate.New(gate.Config{
			Engine: *engine, Containers: strings.Split(*names, ","), Log: os.Stdout,
			Refuse: func() []string {
				text, _ := os.ReadFile(*refuse)
				return strings.Fields(string(text))
			},
		}),
		ReadHeaderTimeout: 10 * time.Second,
	}
	go func() {
		<-ctx.Done()
		_ = s.Close()
	}()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// Limits of one request. They keep a client that is slow or hostile from holding anything but its own connection.
const (
	readLimit   = 5 * time.Second
	writeLimit  = 30 * time.Second
	idleLimit   = 30 * time.Second
	closeLimit  = 2 * time.Second
	maxHeader   = 8 << 10
	maxBody     = 4 << 10
	maxRequests = 16 // answered at the same time
)

// Config is where a server listens and as whom it answers.
type Config struct {
	Socket  string
	Version string
}

// Server answers requests from a source.
type Server struct {
	source Source
	config Config
	log    *slog.Logger
}

// NewServer returns a server that does not listen yet.
func NewServer(source Source, c Config, log *slog.Logger) *Server {
	return &Server{source: source, config: c, log: log}
}

// Run listens and answers until ctx ends, and then returns nil when the requests in progress are answered. It returns an
// error that wraps ErrInUse if something answers on the socket already. It is called once.
func (s *Server) Run(ctx context.Context) error {
	l, err := listen(ctx, s.config.Socket)
	if err != nil {
		return err
	}
	return s.serve(ctx, l)
}

func (s *Server) serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{
		Handler:           s.Handler(),
		ConnContext:       withPeer,
		ReadHeaderTimeout: readLimit,
		ReadTimeout:       readLimit,
		WriteTimeout:      writeLimit,
		IdleTimeout:       idleLimit,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve api: %w", err)
	case <-ctx.Done():
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeLimit)
	defer cancel()
	if err := srv.Shutdown(end); err != nil {
		_ = srv.Close()
	}
	<-done
	return nil
}

// Handler returns the handler of all paths.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/status", get(s, noParameters, func(ctx context.Context, _ struct{}) (Status, error) { return s.source.Status(ctx) }))
	mux.HandleFunc("/v1/plan", get(s, noParameters, func(ctx context.Context, _ struct{}) (PlanReply, error) { return s.source.Plan(ctx) }))
	mux.HandleFunc("/v1/history", get(s, parseHistory, s.source.History))
	mux.HandleFunc("/v1/version", get(s, noParameters, func(context.Context, struct{}) (Version, error) {
		return Version{Version: s.config.Version}, nil
	}))
	s.witness(mux)
	s.orders(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		s.refuse(w, http.StatusNotFound, errors.New("no such path: /v1/status, /v1/plan, /v1/history, /v1/record, /v1/records, /v1/question and /v1/version are answered, /v1/hold, /v1/lift and /v1/approve take orders"))
	})
	slots := make(chan struct{}, maxRequests)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		default:
			s.refuse(w, http.StatusServiceUnavailable, errors.New("too many requests at the same time"))
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		mux.ServeHTTP(w, r)
	})
}

func noParameters(raw string) (struct{}, error) {
	_, err := parseQuery(raw)
	return struct{}{}, err
}

// get is the handler of one path: decode the query, ask once, encode.
func get[Q, R any](s *Server, parse func(string) (Q, error), ask func(context.Context, Q) (R, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			s.refuse(w, http.StatusMethodNotAllowed, fmt.Errorf("method %.20q is not allowed: this path only reads", r.Method))
			return
		}
		q, err := parse(r.URL.RawQuery)
		if err != nil {
			s.refuse(w, http.StatusBadRequest, err)
			return
		}
		reply, err := ask(r.Context(), q)
		switch {
		case errors.Is(err, ErrNotReady):
			s.refuse(w, http.StatusServiceUnavailable, err)
		case errors.Is(err, ErrNoRecord):
			s.refuse(w, http.StatusNotFound, err)
		case err != nil:
			s.refuse(w, http.StatusInternalServerError, err)
		default:
			s.reply(w, http.StatusOK, reply)
		}
	}
}

func (s *Server) refuse(w http.ResponseWriter, status int, err error) {
	s.reply(w, status, Problem{Error: err.Error()})
}

// reply encodes before it writes, so that a value that cannot be encoded becomes an error and not half an answer.
func (s *Server) reply(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		s.log.Error("reply not encoded", "err", err)
		status, b = http.StatusInternalServerError, []byte(`{"error":"the reply cannot be encoded"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	if _, err := w.Write(append(b, '\n')); err != nil {
		s.log.Debug("reply not delivered", "err", err)
	}
}

package dcs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/pgpatrol/pgpatrol/agent/node"
)

// Config says which etcd to ask and for what.
type Config struct {
	// Endpoints are client URLs, http(s)://host:port or host:port, in order of preference. One is used at a time.
	Endpoints []string
	// Namespace is Patroni's; empty means its default, /service.
	Namespace string
	Scope     string
	// Member is the Patroni member of this machine, whose lease is watched. It may be empty.
	Member string
	// TLS is used for https endpoints, and for those without a scheme if it is set. Nil means the system's roots.
	TLS      *tls.Config
	Username string
	// Password is called for every authentication, so that a rotated password file is read again. It is needed if
	// Username is set.
	Password    func() (string, error)
	DialTimeout time.Duration // for one connection, 2 s if 0
	ReadTimeout time.Duration // for one request, 2 s if 0
}

// Deps is what a View needs from its surroundings.
type Deps struct {
	Logger *slog.Logger
	// Now returns this machine's instant.
	Now func() node.Instant
	// Dial connects to host:port. Nil means TCP.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
}

const (
	defaultNamespace = "/service"
	defaultTimeout   = 2 * time.Second
	lockRoot         = "/pgpatrol"
)

var namespaceRE = regexp.MustCompile(`^(/[A-Za-z0-9_.-]{1,63})+$`)

// endpoint is a parsed client URL.
type endpoint struct {
	addr   string // host:port
	secure bool
}

// parseEndpoint checks one client URL. Its error does not repeat the text, which may hold a password by mistake.
func parseEndpoint(text string, secureByDefault bool) (endpoint, error) {
	s := text
	if !strings.Contains(s, "://") {
		scheme := "http://"
		if secureByDefault {
			scheme = "https://"
		}
		s = scheme + s
	}
	u, err := url.Parse(s)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") {
		return endpoint{}, errors.New("not an http(s)://host:port URL")
	}
	if u.User != nil {
		return endpoint{}, errors.New("holds credentials; they belong in username and password_file")
	}
	if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return endpoint{}, errors.New("has a path, query or fragment")
	}
	host, _, ok := splitHostPort(u)
	if !ok {
		return endpoint{}, errors.New("has no valid host and port")
	}
	return endpoint{addr: net.JoinHostPort(host, u.Port()), secure: u.Scheme == "https"}, nil
}

// withDefaults fills in what may be left out.
func (c Config) withDefaults() Config {
	if c.Namespace == "" {
		c.Namespace = defaultNamespace
	}
	c.Namespace = "/" + strings.Trim(c.Namespace, "/")
	if c.DialTimeout <= 0 {
		c.DialTimeout = defaultTimeout
	}
	if c.ReadTimeout <= 0 {
		c.ReadTimeout = defaultTimeout
	}
	return c
}

// check returns the parsed endpoints, or all that is wrong with the configuration.
func (c Config) check() ([]endpoint, error) {
	var errs []error
	var endpoints []endpoint
	if len(c.Endpoints) == 0 {
		errs = append(errs, errors.New("endpoints: none given"))
	}
	for i, text := range c.Endpoints {
		e, err := parseEndpoint(text, c.TLS != nil)
		if err != nil {
			errs = append(errs, fmt.Errorf("endpoints[%d]: %w", i, err))
		}
		endpoints = append(endpoints, e)
	}
	if !namespaceRE.MatchString(c.Namespace) {
		errs = append(errs, errors.New("namespace: not a path of letters, digits, '_', '.' and '-'"))
	}
	if c.Namespace == lockRoot || strings.HasPrefix(c.Namespace, lockRoot+"/") {
		errs = append(errs, errors.New("namespace: "+lockRoot+" is pgpatrol's own"))
	}
	if c.Scope == node.AllScopes {
		errs = append(errs, errors.New("scope: "+node.AllScopes+" stands for every scope"))
	}
	if !validName(c.Scope) {
		errs = append(errs, errors.New("scope: not a name of letters, digits, '_', '.' and '-'"))
	}
	if c.Member != "" && !validName(c.Member) {
		errs = append(errs, errors.New("member: not a name of letters, digits, '_', '.' and '-'"))
	}
	if c.Username != "" && c.Password == nil {
		errs = append(errs, errors.New("username: given without a password"))
	}
	return endpoints, errors.Join(errs...)
}

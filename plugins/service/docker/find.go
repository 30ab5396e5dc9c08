package docker

import (
	"fmt"
	"path/filepath"
	"strings"
)

const usualSocket = "/var/run/docker.sock"

// Environment is what Find looks at.
type Environment struct {
	Getenv   func(string) string
	IsSocket func(path string) bool
}

// Find returns the socket of this machine's engine, empty if there is none, and what it rests on, one line each, for the
// log. $DOCKER_HOST decides alone where it is set: another engine may have containers of the same names. Then the first of
// these that is a socket: the usual one, a rootless engine's below $XDG_RUNTIME_DIR, Colima's and Docker Desktop's below $HOME.
func Find(env Environment) (socket string, evidence []string) {
	note := func(format string, args ...any) { evidence = append(evidence, fmt.Sprintf(format, args...)) }
	if host := env.Getenv("DOCKER_HOST"); host != "" {
		path, ok := strings.CutPrefix(host, "unix://")
		if !ok || !filepath.IsAbs(path) {
			note("DOCKER_HOST is set, and not to a unix socket: an engine that is reached otherwise has to be configured")
			return "", evidence
		}
		note("DOCKER_HOST says %s, a socket: %t", path, env.IsSocket(path))
		return path, evidence
	}
	note("DOCKER_HOST is not set")
	for _, place := range []struct{ name, dir, file string }{
		{"the usual socket", "/", usualSocket},
		{"a rootless engine's socket", env.Getenv("XDG_RUNTIME_DIR"), "docker.sock"},
		{"Colima's socket", env.Getenv("HOME"), ".colima/default/docker.sock"},
		{"Colima's socket", env.Getenv("HOME"), ".config/colima/default/docker.sock"},
		{"Docker Desktop's socket", env.Getenv("HOME"), ".docker/run/docker.sock"},
	} {
		path := filepath.Join(place.dir, place.file)
		switch {
		case !filepath.IsAbs(place.dir):
			note("%s: no folder is known where it could be", place.name)
		case !env.IsSocket(path):
			note("%s: %s is not a socket", place.name, path)
		case socket != "":
			note("%s: %s is there too, not used", place.name, path)
		default:
			socket = path
			note("%s: %s", place.name, path)
		}
	}
	return socket, evidence
}

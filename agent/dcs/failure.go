package dcs

import (
	"context"
	"errors"
	"regexp"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// cause is why a request did not give an answer that can be used.
type cause string

const (
	causeTimeout     cause = "timeout"
	causeUnreachable cause = "unreachable"
	causeNoQuorum    cause = "no quorum"
	causeCredentials cause = "credentials" // the user is refused
	causeToken       cause = "token"       // the user must authenticate anew
	causeDenied      cause = "permission denied"
	causeReadOnly    cause = "read only"
	causeForeign     cause = "another cluster"
	causeBackwards   cause = "went backwards"
	causeTooLarge    cause = "too large"
	causeCompacted   cause = "compacted"
	causeStalled     cause = "stalled"
	causeReplaced    cause = "connection replaced"
	causeStopped     cause = "stopped"
	causeRefused     cause = "refused"
)

// failure is an error of this package: its cause for code, and a redacted, bounded text for people.
type failure struct {
	cause cause
	text  string
}

// Error implements error.
func (f *failure) Error() string { return f.text }

// Is makes the exported sentinels findable.
func (f *failure) Is(target error) bool {
	return (target == ErrReadOnly && f.cause == causeReadOnly) ||
		(target == context.Canceled && f.cause == causeStopped)
}

// causeOf returns the cause of an error of this package.
func causeOf(err error) cause {
	if f, ok := errors.AsType[*failure](err); ok {
		return f.cause
	}
	return causeUnreachable
}

const maxErrorText = 200

var userinfoRE = regexp.MustCompile(`//[^/@\s]*@`)

// redact makes the text of a foreign error fit for logs: no credentials, no control characters, bounded.
func redact(text, secret string) string {
	if secret != "" {
		text = strings.ReplaceAll(text, secret, "<redacted>")
	}
	return printable(userinfoRE.ReplaceAllString(text, "//<redacted>@"), maxErrorText)
}

// classify turns the error of a request to addr into a failure. ctx is the caller's, without the request's own timeout.
func classify(ctx context.Context, err error, addr, secret string) error {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return &failure{causeStopped, "stopped while asking etcd"}
	}
	known := rpctypes.Error(err)
	switch {
	case errors.Is(known, rpctypes.ErrAuthFailed):
		return &failure{causeCredentials, credentialsText(known)}
	case errors.Is(known, rpctypes.ErrInvalidAuthToken), errors.Is(known, rpctypes.ErrAuthOldRevision),
		errors.Is(known, rpctypes.ErrUserEmpty):
		return &failure{causeToken, credentialsText(known)}
	case errors.Is(known, rpctypes.ErrPermissionDenied), errors.Is(known, rpctypes.ErrPermissionNotGranted):
		return &failure{causeDenied, credentialsText(known)}
	case errors.Is(known, rpctypes.ErrNoSpace):
		return &failure{causeReadOnly, "etcd refuses writes: database space exceeded (NOSPACE)"}
	case errors.Is(known, rpctypes.ErrCompacted):
		return &failure{causeCompacted, "revision has been compacted"}
	case errors.Is(known, rpctypes.ErrNoLeader):
		return &failure{causeNoQuorum, addr + " has no etcd leader"}
	}
	code, message := codeOf(err)
	text := redact(message, secret)
	switch code {
	case codes.Unauthenticated, codes.PermissionDenied:
		return &failure{causeDenied, "credentials: " + text}
	case codes.DeadlineExceeded:
		return &failure{causeTimeout, "no answer from " + addr + " in time"}
	case codes.ResourceExhausted:
		if strings.Contains(message, "larger than max") {
			return &failure{causeTooLarge, "answer of " + addr + " is larger than 16 MiB"}
		}
		return &failure{causeRefused, addr + " refuses: " + text}
	case codes.Unavailable, codes.Aborted: // Aborted: see final
		if strings.HasPrefix(message, "etcdserver: request timed out") {
			return &failure{causeNoQuorum, addr + ": " + strings.TrimPrefix(text, "etcdserver: ")}
		}
		return &failure{causeUnreachable, "cannot reach " + addr + ": " + text}
	case codes.InvalidArgument, codes.NotFound, codes.FailedPrecondition, codes.OutOfRange, codes.DataLoss:
		return &failure{causeRefused, addr + " refuses: " + text}
	}
	// Canceled (the connection was closed under the request), or something that does not speak etcd's protocol.
	if errors.Is(err, context.DeadlineExceeded) {
		return &failure{causeTimeout, "no answer from " + addr + " in time"}
	}
	return &failure{causeUnreachable, "cannot use " + addr + ": " + text}
}

// codeOf returns code and text of an error of the library, which turns those that it knows into a type of its own.
func codeOf(err error) (codes.Code, string) {
	if e, ok := errors.AsType[rpctypes.EtcdError](err); ok {
		return e.Code(), e.Error()
	}
	st, _ := status.FromError(err)
	return st.Code(), st.Message()
}

func credentialsText(err error) string {
	return "credentials: " + strings.TrimPrefix(err.Error(), "etcdserver: ")
}

// elsewhere reports whether another endpoint may do better.
func (c cause) elsewhere() bool {
	switch c {
	case causeTimeout, causeUnreachable, causeNoQuorum, causeStalled, causeForeign, causeBackwards:
		return true
	}
	return false
}

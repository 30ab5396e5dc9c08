package probe

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
)

// Response is how an HTTP request ended. Status and Body are of an answer.
type Response struct {
	Outcome Outcome
	Detail  string
	Status  int
	Body    []byte // at most one byte more than the limit
}

const maxHeader = 64 << 10 // bytes of an answer's header

const notHTTP = "the answer is not HTTP"

// Get asks for a path over HTTP and reads up to limit bytes of the answer. Its errors are those of Ask. No redirect and
// no proxy is followed. http.Transport is not used: it dials in the background, keeps goroutines, follows the
// environment, and writes what it does not expect to the standard logger.
func (e *Endpoint) Get(ctx context.Context, path string, limit int64) (Response, error) {
	var r Response
	outcome, detail, err := e.Ask(ctx, func(ctx context.Context, conn net.Conn) error {
		return e.get(ctx, conn, path, limit, &r)
	})
	if err != nil {
		return Response{}, err
	}
	if outcome != OutcomeAnswered {
		return Response{Outcome: outcome, Detail: detail}, nil
	}
	r.Outcome = outcome
	return r, nil
}

// get sends one request and reads the answer.
func (e *Endpoint) get(ctx context.Context, conn net.Conn, path string, limit int64, to *Response) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+e.host+path, nil)
	if err != nil {
		return err
	}
	request.Close = true
	request.Header.Set("User-Agent", "pgpatrol")
	var out bytes.Buffer
	if err := request.Write(&out); err != nil {
		return err
	}
	if _, err := conn.Write(out.Bytes()); err != nil {
		return err
	}
	in := bufio.NewReaderSize(io.LimitReader(conn, maxHeader+limit+1), 1<<10)
	response, err := http.ReadResponse(in, request)
	if err != nil {
		return Nonsense(err, notHTTP)
	}
	defer response.Body.Close()
	to.Status = response.StatusCode
	if limit == 0 {
		return nil
	}
	if to.Body, err = io.ReadAll(io.LimitReader(response.Body, limit+1)); err != nil {
		return Nonsense(err, notHTTP)
	}
	return nil
}

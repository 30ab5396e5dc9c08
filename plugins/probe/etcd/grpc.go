package etcd

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"

	"github.com/pgpatrol/pgpatrol/plugins/probe"
)

// Bounds of one answer, in bytes. A Status takes some 100.
const (
	maxMessage = 16 << 10
	maxFrame   = 16 << 10 // the smallest that HTTP/2 allows
	maxAnswer  = 64 << 10 // of everything that the server sends
)

const notGRPC = "the answer is not gRPC"

// reply is what a gRPC server said: a message, or a status that is not OK.
type reply struct {
	message []byte
	code    codes.Code
	text    string // the server's words for a status that is not OK
}

// question is one unary call.
type question struct {
	method  string
	message []byte // empty: all fields have their defaults
	token   string // of etcd's authentication, "" for none
}

// call makes one unary call over a connection of its own.
//
// It is written out because the gRPC library is made for connections that are kept. One call on a new connection costs it
// 816 allocations of 46 KB, client and server together, where this costs 258 of 18 KB; it starts goroutines; it takes one
// more round trip, for it awaits the server's settings first; and what must be told apart here (refused, silent, hung
// up, nonsense) is all "unavailable" to it.
func call(conn net.Conn, e *probe.Endpoint, q question) (reply, error) {
	if _, err := conn.Write(request(e, q)); err != nil {
		return reply{}, err
	}
	return readReply(conn, io.LimitReader(conn, maxAnswer))
}

// request returns all that the client has to say: preface, settings and the call as stream 1.
func request(e *probe.Endpoint, q question) []byte {
	var fields, out bytes.Buffer // take everything, so that nothing below can fail
	encoder := hpack.NewEncoder(&fields)
	header := []hpack.HeaderField{
		{Name: ":method", Value: "POST"},
		{Name: ":scheme", Value: e.Scheme()},
		{Name: ":path", Value: q.method},
		{Name: ":authority", Value: e.Host()},
		{Name: "content-type", Value: "application/grpc"},
		{Name: "te", Value: "trailers"},
		{Name: "user-agent", Value: "pgpatrol"},
	}
	if q.token != "" {
		header = append(header, hpack.HeaderField{Name: "token", Value: q.token, Sensitive: true})
	}
	for _, f := range header {
		_ = encoder.WriteField(f)
	}
	out.WriteString(http2.ClientPreface)
	framer := http2.NewFramer(&out, nil)
	_ = framer.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0})
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: fields.Bytes(), EndHeaders: true})
	message := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(q.message))) // not compressed
	_ = framer.WriteData(1, true, append(message, q.message...))
	return out.Bytes()
}

// prefix is the length of what comes before a message: one byte for compression, four for the message's length.
const prefix = 5

// readReply reads what the server sends until the reply is whole. It acknowledges the server's settings on w.
func readReply(w io.Writer, r io.Reader) (reply, error) {
	framer := http2.NewFramer(w, r)
	framer.SetMaxReadFrameSize(maxFrame)
	framer.SetReuseFrames()
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	framer.MaxHeaderListSize = maxFrame
	var a answer
	for !a.ended {
		frame, err := framer.ReadFrame()
		if err != nil {
			return reply{}, probe.Nonsense(err, notGRPC)
		}
		if s, ok := frame.(*http2.SettingsFrame); ok && !s.IsAck() {
			err = framer.WriteSettingsAck()
		} else {
			err = a.take(frame)
		}
		if err != nil {
			return reply{}, err
		}
	}
	return a.reply()
}

// answer collects the server's frames.
type answer struct {
	body   []byte
	status string // grpc-status
	text   string // grpc-message
	ended  bool
}

// take adds a frame.
func (a *answer) take(frame http2.Frame) error {
	switch f := frame.(type) {
	case *http2.MetaHeadersFrame:
		a.ended = f.StreamEnded()
		return a.takeHeader(f)
	case *http2.DataFrame:
		a.ended = f.StreamEnded()
		if len(a.body)+len(f.Data()) > maxMessage {
			return probe.NonsenseError("the message is too long")
		}
		a.body = append(a.body, f.Data()...)
	case *http2.RSTStreamFrame:
		return probe.NonsenseError("the server gave up the call: " + f.ErrCode.String())
	case *http2.GoAwayFrame:
		if f.LastStreamID < 1 {
			return probe.NonsenseError("the server takes no call: " + f.ErrCode.String())
		}
	}
	return nil
}

// takeHeader adds the header or the trailers.
func (a *answer) takeHeader(f *http2.MetaHeadersFrame) error {
	for _, h := range f.Fields {
		switch h.Name {
		case ":status":
			if h.Value != "200" {
				return probe.NonsenseError(clean("HTTP status " + h.Value))
			}
		case "content-type":
			if !strings.HasPrefix(h.Value, "application/grpc") {
				return probe.NonsenseError(notGRPC)
			}
		case "grpc-status":
			a.status = h.Value
		case "grpc-message":
			a.text = h.Value
			if s, err := url.PathUnescape(h.Value); err == nil {
				a.text = s
			}
		}
	}
	return nil
}

// reply returns what a whole answer means.
func (a *answer) reply() (reply, error) {
	code, err := strconv.ParseUint(a.status, 10, 31)
	if err != nil {
		return reply{}, probe.NonsenseError(notGRPC)
	}
	if r := (reply{code: codes.Code(code), text: clean(a.text)}); r.code != codes.OK {
		return r, nil
	}
	if len(a.body) < prefix || a.body[0] != 0 || uint64(binary.BigEndian.Uint32(a.body[1:])) != uint64(len(a.body)-prefix) {
		return reply{}, probe.NonsenseError("the message is not whole")
	}
	return reply{message: a.body[prefix:]}, nil
}

// clean makes a server's words fit for logs and pages: one line, bounded, printable.
func clean(s string) string {
	const limit = 200
	out := make([]rune, 0, min(len(s), limit))
	for _, r := range s {
		if len(out) == limit {
			break
		}
		if !strconv.IsPrint(r) {
			r = '?'
		}
		out = append(out, r)
	}
	return string(out)
}

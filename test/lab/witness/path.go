package witness

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/pgpatrol/pgpatrol/test/lab/record"
)

const askPathEvery = 500 * time.Millisecond

// PathConfig says where the way from the client to the leader is looked at.
type PathConfig struct {
	HAProxySocket string
	Etcd          []string // client URLs
	LeaderKey     string
}

// Path asks HAProxy for its servers and etcd for the leader key and its lease twice a second until the context ends.
func Path(ctx context.Context, cfg PathConfig, out *Output) error {
	var all sync.WaitGroup
	all.Go(func() {
		p := proxyWatcher{socket: cfg.HAProxySocket, out: out}
		ticks(ctx.Done(), askPathEvery, p.ask)
	})
	all.Go(func() {
		l := lockWatcher{cfg: cfg, out: out}
		ticks(ctx.Done(), askPathEvery, func() { l.ask(ctx) })
	})
	all.Wait()
	return out.Err()
}

type proxyWatcher struct {
	socket string
	out    *Output
	last   record.Proxy
	at     time.Time
}

func (p *proxyWatcher) ask() {
	got, err := p.read()
	if err != nil {
		got = record.Proxy{Text: err.Error()}
	}
	now := time.Now()
	if got.Text == p.last.Text && maps.Equal(got.Servers, p.last.Servers) && now.Sub(p.at) < 5*time.Second {
		return
	}
	p.last, p.at = got, now
	p.out.Put(record.Record{At: now, Proxy: &got})
}

func (p *proxyWatcher) read() (record.Proxy, error) {
	conn, err := net.DialTimeout("unix", p.socket, askTimeout)
	if err != nil {
		return record.Proxy{}, fmt.Errorf("open HAProxy's socket: %w", err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(askTimeout))
	if _, err := io.WriteString(conn, "show stat\n"); err != nil {
		return record.Proxy{}, fmt.Errorf("ask HAProxy: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(conn, 1<<20))
	if err != nil {
		return record.Proxy{}, fmt.Errorf("read HAProxy's answer: %w", err)
	}
	servers, err := record.ParseStat(text)
	return record.Proxy{Servers: servers}, err
}

// lockWatcher speaks etcd's JSON gateway: the full client would make the witness ten times its size.
type lockWatcher struct {
	cfg  PathConfig
	out  *Output
	next int
	beat beat[record.Lock]
}

func (l *lockWatcher) ask(parent context.Context) {
	ctx, cancel := context.WithTimeout(parent, askTimeout)
	defer cancel()
	got, err := l.read(ctx)
	if parent.Err() != nil {
		return
	}
	if err != nil {
		l.next++ // another member next time
		got = record.Lock{Text: err.Error()}
	}
	now, key := time.Now(), got
	key.Left, key.Text = 0, ""
	if l.beat.due(now, key) {
		l.out.Put(record.Record{At: now, Lock: &got})
	}
}

func (l *lockWatcher) read(ctx context.Context) (record.Lock, error) {
	var keys struct {
		KVs []struct {
			Value       []byte `json:"value"`
			ModRevision string `json:"mod_revision"`
			Lease       string `json:"lease"`
		} `json:"kvs"`
	}
	query := map[string]string{"key": base64.StdEncoding.EncodeToString([]byte(l.cfg.LeaderKey))}
	if err := l.post(ctx, "/v3/kv/range", query, &keys); err != nil {
		return record.Lock{}, err
	}
	got := record.Lock{Answered: true}
	if len(keys.KVs) == 0 {
		return got, nil
	}
	kv := keys.KVs[0]
	got.Holder = string(kv.Value)
	got.Revision, _ = strconv.ParseInt(kv.ModRevision, 10, 64)
	got.Lease, _ = strconv.ParseInt(kv.Lease, 10, 64)
	var ttl struct {
		TTL     string `json:"TTL"`
		Granted string `json:"grantedTTL"`
	}
	if err := l.post(ctx, "/v3/lease/timetolive", map[string]string{"ID": kv.Lease}, &ttl); err != nil {
		return record.Lock{}, err
	}
	got.Left, _ = strconv.ParseInt(ttl.TTL, 10, 64)
	got.Granted, _ = strconv.ParseInt(ttl.Granted, 10, 64)
	return got, nil
}

func (l *lockWatcher) post(ctx context.Context, path string, query, into any) error {
	body, err := json.Marshal(query)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	url := l.cfg.Etcd[l.next%len(l.cfg.Etcd)] + path
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("ask etcd: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("read etcd's answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask etcd: %s: %.200s", resp.Status, text)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("decode etcd's answer: %w", err)
	}
	return nil
}

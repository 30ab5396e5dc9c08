package bench

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is everything that was measured.
type Report struct {
	Window   time.Duration `json:"window"`
	Agents   []Agent       `json:"agents"`
	Binaries []Binary      `json:"binaries"`
	Others   []Other       `json:"others"`
	Etcd     Etcd          `json:"etcd"`

	without, with window
}

// Agent is what one agent costs its own node.
type Agent struct {
	Node     string  `json:"node"`
	Resident int64   `json:"resident_bytes"` // VmRSS at the end
	Peak     int64   `json:"peak_bytes"`     // VmHWM
	Shared   int64   `json:"pss_bytes"`      // PSS at the end, 0 where the kernel does not tell
	CPU      float64 `json:"cpu_percent"`    // of one core, with the programs that it runs
	Programs float64 `json:"programs_percent"`
	Journal  int64   `json:"journal_bytes_per_hour"`
}

// Binary is the size of the stripped, static binary for one platform.
type Binary struct {
	Platform string `json:"platform"`
	Bytes    int64  `json:"bytes"`
}

// Other is the processor time of another program, in per cent of one core, as an average over the nodes that run it.
type Other struct {
	Program string  `json:"program"`
	Without float64 `json:"without_percent"`
	With    float64 `json:"with_percent"`
}

// Etcd is what etcd's members were asked, per minute: unary requests and messages on streams, of all clients.
type Etcd struct {
	Without  float64            `json:"without_per_minute"`
	With     float64            `json:"with_per_minute"`
	PerAgent float64            `json:"per_agent_per_minute"`
	Methods  map[string]float64 `json:"methods_per_agent_per_minute"`
}

// node is the pseudo-program that stands for a whole container.
const wholeNode = "whole node"

// fill computes the figures from the two windows.
func (r *Report) fill() {
	for _, name := range slices.Sorted(maps.Keys(r.with.to.nodes)) {
		from, to := r.with.from.nodes[name], r.with.to.nodes[name]
		a := Agent{Node: name, Resident: to.rss, Peak: to.peak, Shared: to.pss}
		a.Programs = percent(to.programs["pgpatrol"].cpu.children-from.programs["pgpatrol"].cpu.children, from, to)
		a.CPU = a.Programs + percent(to.programs["pgpatrol"].cpu.own-from.programs["pgpatrol"].cpu.own, from, to)
		a.Journal = int64(float64(to.journal-from.journal) * float64(time.Hour) / float64(to.now.Sub(from.now)))
		r.Agents = append(r.Agents, a)
	}
	for _, p := range []string{"systemd", "dbus", "patroni", "haproxy", wholeNode} {
		r.Others = append(r.Others, Other{p, r.without.average(p), r.with.average(p)})
	}
	before, after := r.without.perMinute(), r.with.perMinute()
	r.Etcd.Methods = map[string]float64{}
	agents := float64(max(1, len(r.Agents)))
	for m, n := range after {
		r.Etcd.With += n
		r.Etcd.Without += before[m]
		if d := (n - before[m]) / agents; d >= 0.05 {
			r.Etcd.Methods[m] = d
		}
	}
	r.Etcd.PerAgent = (r.Etcd.With - r.Etcd.Without) / agents
}

// percent returns processor time as a share of one core between two looks.
func percent(d time.Duration, from, to sample) float64 {
	return 100 * float64(d) / float64(to.now.Sub(from.now))
}

// average returns what a program took, in per cent of one core, on average over the nodes where the same process was
// seen at both looks.
func (w window) average(name string) float64 {
	sum, n := 0.0, 0
	for node, from := range w.from.nodes {
		to := w.to.nodes[node]
		if name == wholeNode {
			sum, n = sum+percent(to.node-from.node, from, to), n+1
			continue
		}
		a, there := from.programs[name]
		b := to.programs[name]
		if there && a.pid == b.pid {
			sum, n = sum+percent(b.cpu.own-a.cpu.own, from, to), n+1
		}
	}
	return sum / float64(max(1, n))
}

func (w window) perMinute() map[string]float64 {
	out := map[string]float64{}
	for m, n := range w.to.requests {
		out[m] = float64(n-w.from.requests[m]) / w.to.at.Sub(w.from.at).Minutes()
	}
	return out
}

// over lists what exceeds its bound.
func (r Report) over() []string {
	var out []string
	for _, a := range r.Agents {
		if a.Resident == 0 {
			out = append(out, fmt.Sprintf("no agent runs on %s", a.Node))
		}
		if a.Resident > MaxResident {
			out = append(out, fmt.Sprintf("%s of memory on %s", mega(a.Resident), a.Node))
		}
		if a.CPU > MaxCPU {
			out = append(out, fmt.Sprintf("%.2f %% of a core on %s", a.CPU, a.Node))
		}
	}
	for _, b := range r.Binaries {
		if b.Bytes > MaxBinary {
			out = append(out, fmt.Sprintf("%s binary for %s", mega(b.Bytes), b.Platform))
		}
	}
	return out
}

func (r Report) print(w io.Writer) {
	fmt.Fprintf(w, "\nIdle agents, policy revive: auto, Patroni's default timings, measured for %s\n\n", r.Window)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "AGENT ON\tRESIDENT\tPEAK\tPSS\tCPU, % OF A CORE\tOF THAT ITS PROGRAMS\tJOURNAL PER HOUR\t")
	for _, a := range r.Agents {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%.2f\t%.2f\t%d bytes\t\n", a.Node, mega(a.Resident), mega(a.Peak), mega(a.Shared), a.CPU, a.Programs, a.Journal)
	}
	fmt.Fprintf(t, "bound\t%s\t\t\t%.2f\t\t\t\n", mega(MaxResident), MaxCPU)
	t.Flush()
	fmt.Fprintln(w)
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "OTHER PROGRAMS, % OF A CORE\tWITHOUT AGENTS\tWITH AGENTS\t")
	for _, o := range r.Others {
		fmt.Fprintf(t, "%s, average of the nodes\t%.2f\t%.2f\t\n", o.Program, o.Without, o.With)
	}
	t.Flush()
	fmt.Fprintf(w, "\netcd requests per minute: %.0f without agents, %.0f with; %.1f per agent%s\n\n",
		r.Etcd.Without, r.Etcd.With, r.Etcd.PerAgent, r.Etcd.methods())
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "STRIPPED BINARY FOR\tSIZE\t")
	for _, b := range r.Binaries {
		fmt.Fprintf(t, "%s\t%s\t\n", b.Platform, mega(b.Bytes))
	}
	fmt.Fprintf(t, "bound\t%s\t\n", mega(MaxBinary))
	t.Flush()
	if len(r.over()) == 0 {
		fmt.Fprintln(w, "\nwithin all bounds")
	}
}

// methods lists the agents' requests by method, most first.
func (e Etcd) methods() string {
	names := slices.SortedFunc(maps.Keys(e.Methods), func(a, b string) int {
		return cmp.Or(cmp.Compare(e.Methods[b], e.Methods[a]), cmp.Compare(a, b))
	})
	var parts []string
	for _, m := range names {
		parts = append(parts, fmt.Sprintf("%s %.1f", m, e.Methods[m]))
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

func mega(n int64) string {
	if n == 0 {
		return "?"
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}

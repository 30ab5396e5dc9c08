package node

// Kept is the part of a Memory that makes an agent careful for a while after something happened. It outlives the process:
// an agent that was restarted must be no bolder than one that was not. Instants are of the boot in which it was kept.
type Kept struct {
	Leader        string    `json:"leader,omitempty"`
	LeaderCreated int64     `json:"leader_created,omitempty"` // revision at which the leader key was created
	LeaderChanged Instant   `json:"leader_changed,omitempty"`
	Leaders       []Instant `json:"leaders,omitempty"`
	Disturbed     Instant   `json:"disturbed,omitempty"`
	Storm         bool      `json:"storm,omitempty"`   // too much was sick, or had been until lately
	Upgrade       bool      `json:"upgrade,omitempty"` // a package manager was at work, or had been until lately

	Members  map[string]KeptMember  `json:"members,omitempty"` // those that are remembered
	Services map[string]KeptService `json:"services,omitempty"`
}

// KeptMember is what is kept of one member of the cluster.
type KeptMember struct {
	Diverged bool   `json:"diverged,omitempty"`
	Leader   string `json:"leader,omitempty"`   // that it differs from
	Timeline int64  `json:"timeline,omitempty"` // on which it does
}

// KeptService is what is kept of one service.
type KeptService struct {
	InvocationID string    `json:"invocation_id,omitempty"`
	Restarts     int       `json:"restarts,omitempty"`
	Starts       []Instant `json:"starts,omitempty"`
	Job          string    `json:"job,omitempty"`
	JobEnded     Instant   `json:"job_ended,omitempty"`
	DivergedDir  string    `json:"diverged_dir,omitempty"`
	Answerer     string    `json:"answerer,omitempty"`
	Stranger     string    `json:"stranger,omitempty"`
	Heard        bool      `json:"heard,omitempty"`
}

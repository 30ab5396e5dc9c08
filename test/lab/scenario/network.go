package scenario

// networkScenarios are about etcd and the network: nothing may be done about them.
func networkScenarios() []Scenario { return nil }

package scenario

// hostileScenarios feed the agent wrong configuration and hostile keys.
func hostileScenarios() []Scenario { return nil }

package scenario

// crashScenarios kill the agent itself at the worst moment.
func crashScenarios() []Scenario { return nil }

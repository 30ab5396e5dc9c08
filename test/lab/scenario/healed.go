package scenario

// healedScenarios need a heal other than that of a hung leader: zombie, start limit, replica, stuck loop.
func healedScenarios() []Scenario { return nil }

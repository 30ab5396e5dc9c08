package scenario

// postgresScenarios are about PostgreSQL itself and about rival postmasters: nothing may be done about them.
func postgresScenarios() []Scenario { return nil }

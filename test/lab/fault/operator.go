package fault

import "github.com/pgpatrol/pgpatrol/test/lab/stack"

// operatorFaults are things that people do to the unit: they take longer than one expects, or go wrong in an odd way.
func operatorFaults() []Fault {
	const undo = `rm -f /etc/systemd/system/patroni.service.d/lab.conf; systemctl daemon-reload`
	return []Fault{
		{
			Name: "unit-restart-slow", ID: "F09", Kind: stack.Postgres, Summary: "systemctl restart patroni with an ExecStopPost of 20 s: a job that is in progress for long",
			Do: script(dropIn("ExecStopPost=/bin/sleep 20") + `systemctl --no-block restart patroni`), Undo: script(undo),
		},
		{
			Name: "unit-reload-slow", ID: "F09", Kind: stack.Postgres, Summary: "systemctl reload patroni with an ExecReload of 40 s; Patroni itself is not told",
			Do: script(dropIn("ExecReload=", "ExecReload=/bin/sleep 40") + `systemctl --no-block reload patroni`), Undo: script(undo),
		},
		{
			Name: "dropin-start-limit", ID: "F14", Kind: stack.Postgres, Summary: "the start limit counts over two minutes: a slow machine reaches it too",
			Do: script(dropIn("[Unit]", "StartLimitIntervalSec=120")), Undo: script(undo),
		},
		{
			// Python has not installed its handler yet, so SIGHUP ends it; systemd counts that as a clean end (Debian's
			// unit: Restart=on-failure) and starts nothing.
			Name: "unit-reload-early", ID: "F10", Kind: stack.Postgres, Summary: "systemctl restart patroni and reload in the same moment: Patroni dies of SIGHUP, cleanly for systemd",
			Do: script(`for i in 1 2 3; do
  systemctl restart patroni; systemctl reload patroni || true
  for j in $(seq 15); do [ "$(systemctl show -p ActiveState --value patroni)" = inactive ] && exit 0; sleep .2; done
done; echo "it survived every reload"; exit 1`),
			Undo: script(`systemctl start patroni`),
		},
	}
}

// dropIn writes a drop-in of the unit that settling removes.
func dropIn(lines ...string) string {
	s := "mkdir -p /etc/systemd/system/patroni.service.d\nprintf '[Service]\\n"
	for _, l := range lines {
		s += l + "\\n"
	}
	return s + "' > /etc/systemd/system/patroni.service.d/lab.conf\nsystemctl daemon-reload\n"
}

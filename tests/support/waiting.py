"""How long a test waits for what another process does."""

# Seconds that only a hang takes, however slow and loaded the machine is.
HANG_S = 900

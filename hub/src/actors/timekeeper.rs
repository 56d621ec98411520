//! Turns what falls due into commands: expiries become events. Nothing waits for it: the edge refuses by the clock.

"""What happens next: a group becomes a chord, a finished group the next one."""

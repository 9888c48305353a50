"""The net: whatever stands still is moved on."""

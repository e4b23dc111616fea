"""The connections to the relays of other pods: what is pushed to them, and what they push."""

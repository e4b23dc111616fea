"""`omni plan`: how many replicas each placement group needs for a load, from the times that a running mesh measured."""

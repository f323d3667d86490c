"""Groups whose members join, leave, freeze and are killed under load, while the broker is killed now and then."""

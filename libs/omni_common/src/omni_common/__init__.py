"""What every service of the omni mesh shares; see libs/omni_common/README.md for its parts."""

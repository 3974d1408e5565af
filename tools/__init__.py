"""Tools for developers: commands of `kit` and checks that the production image leaves out."""

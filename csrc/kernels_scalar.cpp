// see helpers

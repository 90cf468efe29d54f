//! The lab as a program; it starts nothing yet.

fn main() {}

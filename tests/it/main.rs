mod arcgis;
mod policy;

fn main() {}

mod arcgis;

fn main() {}

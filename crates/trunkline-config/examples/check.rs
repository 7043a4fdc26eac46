//! Checks a configuration file: `cargo run -p trunkline-config --example check -- FILE [KEY.PATH=VALUE …]`.
//! Without a file, the example prints a sample configuration.

use std::path::Path;
use std::process::ExitCode;

use trunkline_config::{Config, Layers, example};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(file) = arguments.next() else {
        print!("{}", example());
        return ExitCode::SUCCESS;
    };
    match Config::load(Path::new(&file), &Layers::from_process(arguments.collect())) {
        Ok(config) => {
            for warning in config.warnings() {
                eprintln!("warning: {warning}");
            }
            println!("{}: {} routes, {} peers; ok", config.node.name, config.routes.len(), config.peers.len());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

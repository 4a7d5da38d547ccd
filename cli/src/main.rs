//! The program `glm`.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    glm_cli::main()
}

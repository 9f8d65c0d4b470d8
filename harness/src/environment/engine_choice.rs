//! `--engine auto|docker|process`: which engine a run gets, and why not another.

use std::sync::Arc;

use anyhow::{Result, bail};
use clap::ValueEnum;

use super::docker::{DockerEngine, ImageOverrides};
use super::engine::Engine;
use super::process::ProcessEngine;
use super::registration::Registration;

/// The engine asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum EngineChoice {
    /// A container engine that answers and has usable images, otherwise the process engine.
    #[default]
    Auto,
    /// Containers, or an error.
    Docker,
    /// The host's binaries, or an error.
    Process,
}

/// Resolves the choice. `auto` never starts an engine and never waits for a pull: with an engine
/// that answers but holds no usable image it takes the process engine where there is one.
///
/// # Errors
/// If nothing usable is found (exit code 6, environment not ready); each thing tried is named
/// with its fix.
pub async fn choose_engine(
    choice: EngineChoice,
    run: &Arc<Registration>,
    images: &ImageOverrides,
) -> Result<Arc<dyn Engine>> {
    let docker = |may_pull| DockerEngine::connect(Arc::clone(run), images, may_pull);
    let process = || ProcessEngine::find(Arc::clone(run));
    match choice {
        EngineChoice::Docker => Ok(Arc::new(docker(true).await?)),
        EngineChoice::Process => Ok(Arc::new(process()?)),
        EngineChoice::Auto => {
            let no_docker = match docker(false).await {
                Ok(engine) => return Ok(Arc::new(engine)),
                Err(error) => error,
            };
            let no_process = match process() {
                Ok(engine) => {
                    tracing::info!("take the process engine; docker: {no_docker:#}");
                    return Ok(Arc::new(engine));
                }
                Err(error) => error,
            };
            // Neither is ready as it stands: a pull is what remains.
            match docker(true).await {
                Ok(engine) => Ok(Arc::new(engine)),
                Err(error) => bail!("no engine is ready.\n  docker: {error:#}\n  process: {no_process:#}"),
            }
        }
    }
}

//! `s3s-fs`: an S3 server of other make than SeaweedFS, in this process. It looks first and writes then, so it serves one
//! writer at a time: it shows what becomes of requests, and nothing about races.

use super::servers::WRITER;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// The server; it ends when this is dropped.
pub struct OneWriter {
    pub port: u16,
    _runtime: Runtime,
    _dir: TempDir,
}

/// Starts it, with a bucket.
pub fn start(bucket: &str) -> OneWriter {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    std::fs::create_dir(dir.path().join(bucket)).unwrap();
    let mut builder = S3ServiceBuilder::new(FileSystem::new(dir.path()).unwrap());
    builder.set_auth(SimpleAuth::from_single(WRITER.0, WRITER.1));
    let service = builder.build();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).unwrap();
    let port = listener.local_addr().unwrap().port();
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service.clone()));
        }
    });
    OneWriter { port, _runtime: runtime, _dir: dir }
}

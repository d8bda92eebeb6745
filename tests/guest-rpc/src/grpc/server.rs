// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The service over gRPC.

use std::convert::Infallible;
use std::future::pending;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic_prost::ProstCodec;
use tonic014::body::Body;
use tonic014::codegen::http;
use tonic014::server::{Grpc, NamedService};
use tonic014::transport::Server;
use tonic014::{Code, Request, Response, Status, Streaming};
use tower::{Service, service_fn};

use super::{CANCELLED, CHAT, DOWNLOAD, ECHO, FRAME, NAME, READY, REFUSE, UPLOAD, WAIT, WINDOW};
use crate::load::{Call, Load, REFUSED, Tally};
use crate::message::{Amount, Nothing, Piece, Refusal, Summary};
use crate::transport::Incoming;

type Pieces = Pin<Box<dyn Stream<Item = Result<Piece, Status>> + Send>>;

pub(crate) async fn run(load: Load, incoming: Incoming) {
    Server::builder()
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_frame_size(FRAME)
        .http2_max_pending_accept_reset_streams(Some(CANCELLED))
        .add_service(Methods(load))
        .serve_with_incoming(incoming)
        .await
        .ok();
}

#[derive(Clone, Debug)]
struct Methods(Load);

impl NamedService for Methods {
    const NAME: &'static str = NAME;
}

impl Service<http::Request<Body>> for Methods {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let load = self.0.clone();
        Box::pin(async move { Ok(serve(load, request).await) })
    }
}

async fn serve(load: Load, request: http::Request<Body>) -> http::Response<Body> {
    let begin = move || load.begin();
    match request.uri().path() {
        ECHO => {
            let method = service_fn(|piece| echo(begin(), piece));
            Grpc::new(ProstCodec::default())
                .unary(method, request)
                .await
        }
        UPLOAD => {
            let method = service_fn(|pieces| upload(begin(), pieces));
            let mut grpc = Grpc::new(ProstCodec::default());
            grpc.client_streaming(method, request).await
        }
        DOWNLOAD => {
            let method = service_fn(|amount| download(begin(), amount));
            let mut grpc = Grpc::new(ProstCodec::default());
            grpc.server_streaming(method, request).await
        }
        CHAT => {
            let method = service_fn(|pieces| chat(begin(), pieces));
            Grpc::new(ProstCodec::default())
                .streaming(method, request)
                .await
        }
        WAIT => {
            let method = service_fn(|nothing| wait(begin(), nothing));
            Grpc::new(ProstCodec::default())
                .unary(method, request)
                .await
        }
        REFUSE => {
            let method = service_fn(|refusal| refuse(begin(), refusal));
            Grpc::new(ProstCodec::default())
                .unary(method, request)
                .await
        }
        _ => Status::unimplemented("no such method").into_http(),
    }
}

async fn echo(call: Call, piece: Request<Piece>) -> Result<Response<Piece>, Status> {
    call.finish();
    Ok(Response::new(piece.into_inner()))
}

async fn upload(
    call: Call,
    pieces: Request<Streaming<Piece>>,
) -> Result<Response<Summary>, Status> {
    let mut pieces = pieces.into_inner();
    let mut tally = Tally::default();
    while let Some(piece) = pieces.message().await? {
        tally.add(&piece.bytes);
    }
    call.finish();
    Ok(Response::new(tally.summary()))
}

async fn download(call: Call, amount: Request<Amount>) -> Result<Response<Pieces>, Status> {
    let (sender, receiver) = mpsc::channel(READY);
    let amount = amount.into_inner();
    tokio::spawn(async move {
        for piece in amount.pieces() {
            if sender.send(Ok(piece)).await.is_err() {
                return;
            }
        }
        call.finish();
    });
    Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
}

async fn chat(call: Call, pieces: Request<Streaming<Piece>>) -> Result<Response<Pieces>, Status> {
    let mut call = Some(call);
    let pieces = pieces.into_inner().map(Some);
    let pieces = pieces.chain(tokio_stream::once(None));
    let answers = pieces.filter_map(move |piece| {
        if let (None, Some(call)) = (&piece, call.take_if(|_| piece.is_none())) {
            call.finish();
        }
        piece
    });
    Ok(Response::new(Box::pin(answers)))
}

async fn wait(call: Call, _: Request<Nothing>) -> Result<Response<Nothing>, Status> {
    let _call = call;
    pending().await
}

async fn refuse(call: Call, refusal: Request<Refusal>) -> Result<Response<Nothing>, Status> {
    call.finish();
    let code = Code::from_i32(refusal.into_inner().code);
    Err(Status::new(code, REFUSED))
}

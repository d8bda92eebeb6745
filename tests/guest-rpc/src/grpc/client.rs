// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A gRPC client. Clones share one connection.

use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic_prost::ProstCodec;
use tonic014::client::Grpc;
use tonic014::codegen::http::uri::PathAndQuery;
use tonic014::transport::{Channel, Endpoint};
use tonic014::{Code, Request, Status};
use tower::service_fn;

use super::{CHAT, DOWNLOAD, ECHO, MISSING, READY, REFUSE, UPLOAD, WAIT, WINDOW};
use crate::client::{Answer, Client, Failure, Service};
use crate::load::Tally;
use crate::message::{Amount, Nothing, Piece, Refusal, Summary};

#[derive(Clone)]
pub(crate) struct GrpcClient(Channel);

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self {
            code: status.code().into(),
            text: status.message().to_owned(),
        }
    }
}

impl GrpcClient {
    async fn ready(&self) -> Answer<Grpc<Channel>> {
        let mut grpc = Grpc::new(self.0.clone());
        grpc.ready().await.map_err(Failure::broken)?;
        Ok(grpc)
    }

    async fn unary<Q, A>(&self, path: &'static str, request: Request<Q>) -> Answer<A>
    where
        Q: prost::Message + Default + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let path = PathAndQuery::from_static(path);
        let codec = ProstCodec::<Q, A>::default();
        let answer = self.ready().await?.unary(request, path, codec).await?;
        Ok(answer.into_inner())
    }
}

impl Client for GrpcClient {
    // The specification says 4 (deadline exceeded), but tonic reports "cancelled".
    const LATE: i32 = Code::Cancelled as i32;
    const MISSING: i32 = Code::Unimplemented as i32;
    const TOO_LONG: Option<i32> = Some(Code::OutOfRange as i32);

    async fn connect(service: &Service) -> Answer<Self> {
        let Service { transport, port } = service.clone();
        let connector = service_fn(move |_| {
            let stream = transport.connect(port);
            async { stream.await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://vsock")
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .connect_with_connector(connector)
            .await;
        Ok(Self(channel.map_err(Failure::broken)?))
    }

    async fn echo(&self, piece: Piece) -> Answer<Piece> {
        self.unary(ECHO, Request::new(piece)).await
    }

    async fn upload(&self, amount: Amount) -> Answer<Summary> {
        let pieces = tokio_stream::iter(amount.pieces());
        let codec = ProstCodec::<Piece, Summary>::default();
        let path = PathAndQuery::from_static(UPLOAD);
        let mut grpc = self.ready().await?;
        let answer = grpc.client_streaming(Request::new(pieces), path, codec);
        Ok(answer.await?.into_inner())
    }

    async fn download(&self, amount: Amount) -> Answer<Summary> {
        let codec = ProstCodec::<Amount, Piece>::default();
        let path = PathAndQuery::from_static(DOWNLOAD);
        let mut grpc = self.ready().await?;
        let answer = grpc.server_streaming(Request::new(amount), path, codec);
        let mut pieces = answer.await?.into_inner();
        let mut tally = Tally::default();
        while let Some(piece) = pieces.message().await? {
            tally.add(&piece.bytes);
        }
        Ok(tally.summary())
    }

    async fn chat(&self, amount: Amount) -> Answer<Summary> {
        let (sender, receiver) = mpsc::channel(READY);
        let codec = ProstCodec::<Piece, Piece>::default();
        let path = PathAndQuery::from_static(CHAT);
        let mut grpc = self.ready().await?;
        let request = Request::new(ReceiverStream::new(receiver));
        let mut answers = grpc.streaming(request, path, codec).await?.into_inner();
        let mut tally = Tally::default();
        for piece in amount.pieces() {
            sender.send(piece).await.map_err(Failure::broken)?;
            let answer = answers.message().await?;
            tally.add(&answer.unwrap_or_default().bytes);
        }
        drop(sender);
        match answers.message().await? {
            None => Ok(tally.summary()),
            Some(_) => Err(Failure::broken("received a piece that was not sent")),
        }
    }

    async fn wait(&self, limit: Duration) -> Answer<()> {
        let mut request = Request::new(Nothing {});
        request.set_timeout(limit);
        self.unary::<_, Nothing>(WAIT, request).await.map(drop)
    }

    async fn refuse(&self, code: i32) -> Answer<()> {
        let refusal = Request::new(Refusal { code });
        self.unary::<_, Nothing>(REFUSE, refusal).await.map(drop)
    }

    async fn miss(&self) -> Answer<()> {
        let nothing = Request::new(Nothing {});
        self.unary::<_, Nothing>(MISSING, nothing).await.map(drop)
    }
}

// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! An HTTP client. Clones share connections: one for each simultaneous call, or a single one over
//! HTTP/2.

use std::convert::Infallible;
use std::pin::Pin;
use std::time::Duration;

use axum08::body::{Body, Bytes};
use axum08::http::uri::Uri;
use axum08::http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};

use super::{CHAT, DOWNLOAD, ECHO, MISSING, REFUSE, REFUSED, UPLOAD, WAIT};
use crate::client::{Answer, Client, Failure, Service};
use crate::load::Tally;
use crate::message::{Amount, Piece, Refusal, Summary};
use crate::transport::Connection;

/// How many pieces of a body are prepared before they are sent.
const READY: usize = 4;

/// Connects to the service, whatever the URI says.
#[derive(Clone)]
struct Connector(Service);

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Connection>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let stream = self.0.transport.connect(self.0.port);
        Box::pin(async { stream.await.map(TokioIo::new) })
    }
}

/// A client over HTTP/2 if `TWO`, otherwise over HTTP/1.1.
#[derive(Clone)]
pub(crate) struct HttpClient<const TWO: bool>(legacy::Client<Connector, Body>);

impl<const TWO: bool> HttpClient<TWO> {
    async fn post(&self, path: &str, body: Body) -> Answer<Incoming> {
        let request = Request::post(format!("http://vsock{path}"));
        let request = request.body(body).map_err(Failure::broken)?;
        let response = self.0.request(request).await.map_err(Failure::broken)?;
        let status = response.status();
        let body = response.into_body();
        if status == StatusCode::OK {
            return Ok(body);
        }
        Err(Failure {
            code: status.as_u16().into(),
            text: String::from_utf8_lossy(&whole(body).await?).into_owned(),
        })
    }

    async fn ask(&self, path: &str, message: &impl Message) -> Answer<Bytes> {
        whole(self.post(path, message.encode_to_vec().into()).await?).await
    }
}

async fn whole(body: Incoming) -> Answer<Bytes> {
    Ok(body.collect().await.map_err(Failure::broken)?.to_bytes())
}

fn decode<T: Message + Default>(bytes: Bytes) -> Answer<T> {
    T::decode(bytes).map_err(Failure::broken)
}

fn streamed(pieces: impl Stream<Item = Vec<u8>> + Send + 'static) -> Body {
    Body::from_stream(pieces.map(Ok::<_, Infallible>))
}

impl<const TWO: bool> Client for HttpClient<TWO> {
    /// The protocol has no deadlines: the client cancels the call.
    const LATE: i32 = -1;
    const MISSING: i32 = StatusCode::NOT_FOUND.as_u16() as i32;
    // An HTTP/1.1 service answers and closes. The client may only notice that it cannot send the
    // rest.
    const TOO_LONG: Option<i32> = if TWO {
        Some(StatusCode::PAYLOAD_TOO_LARGE.as_u16() as i32)
    } else {
        None
    };

    // axum's service ends an HTTP/2 connection on which 20 cancelled calls wait to be served.
    const OTHERS_GO_ON: bool = !TWO;

    fn code(refusal: i32) -> i32 {
        i32::from(REFUSED) + refusal
    }

    async fn connect(service: &Service) -> Answer<Self> {
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        builder.http2_only(TWO);
        Ok(Self(builder.build(Connector(service.clone()))))
    }

    async fn echo(&self, piece: Piece) -> Answer<Piece> {
        decode(self.ask(ECHO, &piece).await?)
    }

    async fn upload(&self, amount: Amount) -> Answer<Summary> {
        let pieces = tokio_stream::iter(amount.pieces().map(|piece| piece.bytes));
        decode(whole(self.post(UPLOAD, streamed(pieces)).await?).await?)
    }

    async fn download(&self, amount: Amount) -> Answer<Summary> {
        let body = self.post(DOWNLOAD, amount.encode_to_vec().into()).await?;
        let mut bytes = body.into_data_stream();
        let mut tally = Tally::default();
        while let Some(bytes) = bytes.next().await {
            tally.add(&bytes.map_err(Failure::broken)?);
        }
        Ok(tally.summary())
    }

    async fn chat(&self, amount: Amount) -> Answer<Summary> {
        let (sender, receiver) = mpsc::channel(READY);
        let body = streamed(ReceiverStream::new(receiver));
        let mut answers = self.post(CHAT, body).await?.into_data_stream();
        let mut tally = Tally::default();
        for piece in amount.pieces() {
            let mut missing = piece.bytes.len();
            sender.send(piece.bytes).await.map_err(Failure::broken)?;
            while missing > 0 {
                let bytes = answers.next().await;
                let bytes = bytes.ok_or_else(|| Failure::broken("the body has ended"))?;
                let bytes = bytes.map_err(Failure::broken)?;
                tally.add(&bytes);
                missing = missing.saturating_sub(bytes.len());
            }
        }
        drop(sender);
        while let Some(bytes) = answers.next().await {
            tally.add(&bytes.map_err(Failure::broken)?);
        }
        Ok(tally.summary())
    }

    async fn wait(&self, limit: Duration) -> Answer<()> {
        let call = timeout(limit, self.post(WAIT, Body::empty()));
        call.await.map_err(Failure::broken)?.map(drop)
    }

    async fn refuse(&self, code: i32) -> Answer<()> {
        self.ask(REFUSE, &Refusal { code }).await.map(drop)
    }

    async fn miss(&self) -> Answer<()> {
        self.post(MISSING, Body::empty()).await.map(drop)
    }
}

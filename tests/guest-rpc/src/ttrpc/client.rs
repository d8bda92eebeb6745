// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A ttrpc client. Clones share one connection.

use std::time::Duration;

use prost::Message;
use ttrpc::asynchronous::transport::Socket;
use ttrpc::asynchronous::{Client as Connection, StreamInner};
use ttrpc::proto::RequestInit;
use ttrpc::{Code, Error, Request};

use super::{CHAT, DOWNLOAD, ECHO, MISSING, NAME, REFUSE, UPLOAD, WAIT};
use crate::client::{Answer, Client, Failure, Service};
use crate::load::Tally;
use crate::message::{Amount, Nothing, Piece, Refusal, Summary};

#[derive(Clone)]
pub(crate) struct TtrpcClient(Connection);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::RpcStatus(status) => Self {
                code: status.code() as i32,
                text: status.message().to_owned(),
            },
            // The client's own deadline passed first.
            Error::Others(text) if text == "Request deadline elapsed" => Self {
                code: TtrpcClient::LATE,
                text,
            },
            other => Self::broken(other),
        }
    }
}

impl From<prost::DecodeError> for Failure {
    fn from(error: prost::DecodeError) -> Self {
        Self::broken(error)
    }
}

impl TtrpcClient {
    async fn unary<A: Message + Default>(
        &self,
        method: &str,
        message: &impl Message,
        limit: Duration,
    ) -> Answer<A> {
        let answer = self.0.request(request(method, message, limit)).await?;
        Ok(A::decode(&*answer.payload)?)
    }

    /// Opens a stream that the client sends. The service can also send on it.
    async fn stream(&self, method: &str, service_sends: bool) -> Answer<StreamInner> {
        let mut request = request(method, &Nothing {}, Duration::ZERO);
        request.payload.clear();
        Ok(self.0.new_stream(request, true, service_sends).await?)
    }
}

/// Builds a request. A `limit` of zero means no deadline.
fn request(method: &str, message: &impl Message, limit: Duration) -> Request {
    let nanos = i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX);
    let mut request = Request::init_request(NAME.to_owned(), method.to_owned(), nanos, Vec::new());
    request.set_payload(message.encode_to_vec());
    request
}

impl Client for TtrpcClient {
    const LATE: i32 = Code::DEADLINE_EXCEEDED as i32;
    const MISSING: i32 = Code::UNIMPLEMENTED as i32;
    // Such a message is refused before it is sent, so there is no code.
    const TOO_LONG: Option<i32> = Some(-1);
    // A call that is cancelled while its request is being written ends the connection.
    const OTHERS_GO_ON: bool = false;

    async fn connect(service: &Service) -> Answer<Self> {
        let stream = service.transport.connect(service.port).await;
        let stream = stream.map_err(Failure::broken)?;
        Ok(Self(Connection::new(Socket::new(stream))))
    }

    async fn echo(&self, piece: Piece) -> Answer<Piece> {
        self.unary(ECHO, &piece, Duration::ZERO).await
    }

    async fn upload(&self, amount: Amount) -> Answer<Summary> {
        let mut stream = self.stream(UPLOAD, false).await?;
        for piece in amount.pieces() {
            stream.send(piece.encode_to_vec()).await?;
        }
        stream.close_send().await?;
        Ok(Summary::decode(&*stream.recv().await?)?)
    }

    async fn download(&self, amount: Amount) -> Answer<Summary> {
        let request = request(DOWNLOAD, &amount, Duration::ZERO);
        let mut stream = self.0.new_stream(request, false, true).await?;
        let mut tally = Tally::default();
        loop {
            match stream.recv().await {
                Ok(bytes) => tally.add(&Piece::decode(&*bytes)?.bytes),
                Err(Error::Eof) => return Ok(tally.summary()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn chat(&self, amount: Amount) -> Answer<Summary> {
        let mut stream = self.stream(CHAT, true).await?;
        let mut tally = Tally::default();
        for piece in amount.pieces() {
            stream.send(piece.encode_to_vec()).await?;
            tally.add(&Piece::decode(&*stream.recv().await?)?.bytes);
        }
        stream.close_send().await?;
        match stream.recv().await {
            Err(Error::Eof) => Ok(tally.summary()),
            Ok(_) => Err(Failure::broken("received a piece that was not sent")),
            Err(error) => Err(error.into()),
        }
    }

    async fn wait(&self, limit: Duration) -> Answer<()> {
        self.unary::<Nothing>(WAIT, &Nothing {}, limit)
            .await
            .map(drop)
    }

    async fn refuse(&self, code: i32) -> Answer<()> {
        self.unary::<Nothing>(REFUSE, &Refusal { code }, Duration::ZERO)
            .await
            .map(drop)
    }

    async fn miss(&self) -> Answer<()> {
        self.unary::<Nothing>(MISSING, &Nothing {}, Duration::ZERO)
            .await
            .map(drop)
    }
}

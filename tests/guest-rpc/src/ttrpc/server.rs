// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The service over ttrpc.

use std::collections::HashMap;
use std::future::pending;
use std::sync::Arc;

use prost::Message;
use tonic014::async_trait;
use ttrpc::asynchronous::transport::Listener;
use ttrpc::asynchronous::{
    MethodHandler, Server, Service, StreamHandler, StreamInner, TtrpcContext,
};
use ttrpc::proto::ResponseInit;
use ttrpc::{Code, Error, Request, Response, get_status};

use super::{CHAT, DOWNLOAD, ECHO, NAME, REFUSE, UPLOAD, WAIT};
use crate::load::{Load, REFUSED, Tally};
use crate::message::{Amount, Nothing, Piece, Refusal};
use crate::transport::Incoming;

type Answer<T> = ttrpc::Result<T>;

pub(crate) async fn run(load: Load, incoming: Incoming) {
    let methods = [Method::Echo, Method::Wait, Method::Refuse].map(|method| {
        let handler = Unary(load.clone(), method);
        let handler: Box<dyn MethodHandler + Send + Sync> = Box::new(handler);
        (method.name().to_owned(), handler)
    });
    let streams = [Method::Upload, Method::Download, Method::Chat].map(|method| {
        let handler = Streamed(load.clone(), method);
        let handler: Arc<dyn StreamHandler + Send + Sync> = Arc::new(handler);
        (method.name().to_owned(), handler)
    });
    let service = Service {
        methods: methods.into(),
        streams: streams.into(),
    };
    let services = HashMap::from([(NAME.to_owned(), service)]);
    let mut server = Server::new()
        .add_listener(Listener::new(incoming))
        .register_service(services);
    if server.start().await.is_ok() {
        pending::<()>().await;
    }
}

#[derive(Clone, Copy, Debug)]
enum Method {
    Echo,
    Upload,
    Download,
    Chat,
    Wait,
    Refuse,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Self::Echo => ECHO,
            Self::Upload => UPLOAD,
            Self::Download => DOWNLOAD,
            Self::Chat => CHAT,
            Self::Wait => WAIT,
            Self::Refuse => REFUSE,
        }
    }
}

/// A method with one request and one answer.
struct Unary(Load, Method);

#[async_trait]
impl MethodHandler for Unary {
    async fn handler(&self, _: TtrpcContext, request: Request) -> Answer<Response> {
        let call = self.0.begin();
        let status = match self.1 {
            Method::Wait => pending().await,
            Method::Refuse => {
                let code = decode::<Refusal>(&request.payload)?.code;
                get_status(code_of(code), REFUSED)
            }
            _ => get_status(Code::OK, ""),
        };
        let mut response = Response::init_status(status);
        response.set_payload(match self.1 {
            Method::Echo => decode::<Piece>(&request.payload)?.encode_to_vec(),
            _ => Nothing {}.encode_to_vec(),
        });
        call.finish();
        Ok(response)
    }
}

/// A method with a stream of requests, of answers, or of both.
struct Streamed(Load, Method);

#[async_trait]
impl StreamHandler for Streamed {
    async fn handler(&self, _: TtrpcContext, mut stream: StreamInner) -> Answer<Option<Response>> {
        let call = self.0.begin();
        let mut response = None;
        match self.1 {
            Method::Upload => {
                let mut tally = Tally::default();
                while let Some(bytes) = next(&mut stream).await? {
                    tally.add(&decode::<Piece>(&bytes)?.bytes);
                }
                let mut sum = Response::init_status(get_status(Code::OK, ""));
                sum.set_payload(tally.summary().encode_to_vec());
                response = Some(sum);
            }
            Method::Download => {
                let amount = decode::<Amount>(&stream.recv().await?)?;
                for piece in amount.pieces() {
                    stream.send(piece.encode_to_vec()).await?;
                }
            }
            _ => {
                while let Some(bytes) = next(&mut stream).await? {
                    stream.send(bytes).await?;
                }
            }
        }
        call.finish();
        Ok(response)
    }
}

/// Returns the next message of a stream, if there is one.
async fn next(stream: &mut StreamInner) -> Answer<Option<Vec<u8>>> {
    match stream.recv().await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(Error::Eof) => Ok(None),
        Err(error) => Err(error),
    }
}

fn decode<T: Message + Default>(bytes: &[u8]) -> Answer<T> {
    T::decode(bytes).map_err(|error| Error::Others(error.to_string()))
}

fn code_of(number: i32) -> Code {
    const ALL: [Code; 17] = [
        Code::OK,
        Code::CANCELLED,
        Code::UNKNOWN,
        Code::INVALID_ARGUMENT,
        Code::DEADLINE_EXCEEDED,
        Code::NOT_FOUND,
        Code::ALREADY_EXISTS,
        Code::PERMISSION_DENIED,
        Code::RESOURCE_EXHAUSTED,
        Code::FAILED_PRECONDITION,
        Code::ABORTED,
        Code::OUT_OF_RANGE,
        Code::UNIMPLEMENTED,
        Code::INTERNAL,
        Code::UNAVAILABLE,
        Code::DATA_LOSS,
        Code::UNAUTHENTICATED,
    ];
    ALL.into_iter()
        .find(|code| *code as i32 == number)
        .unwrap_or(Code::UNKNOWN)
}

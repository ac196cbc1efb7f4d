//! One request, and what comes back.

use std::time::Duration;

use futures::FutureExt;
use reqwest::Response;
use reqwest::header::{CONTENT_TYPE, LOCATION};
use tokio::time::{Instant, timeout, timeout_at};

use crate::caller::{Outlet, Settings};
use crate::error::Problem;
use crate::request::Prepared;
use crate::response::{Completion, Unfit};
use crate::retry::{self, Retry};
use crate::sse::Events;
use crate::{endpoint, message};

/// Why a request has no completion, and whether it may have one later.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) problem: Problem,
    pub(crate) retry: Retry,
}

/// A body that may not be larger than allowed.
struct Body {
    response: Response,
    read: u64,
    limit: u64,
}

/// How much of an error's body is read, and how long: the status says the most important thing.
const ERROR_BYTES: u64 = 64 << 10;
const ERROR_TIME: Duration = Duration::from_secs(5);

/// How long a stream is read on after its completion is complete: the usage is still to come, and then the stream's end, which
/// some servers forget.
const GRACE: Duration = Duration::from_secs(2);

impl Settings {
    /// Sends the request once.
    pub(crate) async fn attempt(&self, prepared: &Prepared, outlet: &mut Outlet) -> Result<Completion, Failure> {
        let request = self.client.post(self.endpoint.url.clone()).body(prepared.body.clone());
        let response = request.send().await.map_err(Failure::unanswered)?;
        if !response.status().is_success() {
            return Err(Failure::refused(response).await);
        }
        let content_type = content_type(&response);
        let mut body = Body {
            response,
            read: 0,
            limit: self.max_response_bytes,
        };
        let begun = body.begin().await.map_err(Failure::of)?;
        if is_stream(&begun, &content_type, prepared.streamed) {
            return body.stream(&begun, outlet).await;
        }
        let bytes = body.whole(begun).await.map_err(Failure::of)?;
        Completion::whole(&bytes).map_err(|unfit| {
            let text = String::from_utf8_lossy(&bytes);
            match unfit {
                Unfit::Invalid(_) if message::is_html(&text, &content_type) => {
                    Failure::unfit(Unfit::Invalid(format!("it is {}", message::of_html(&text))))
                }
                unfit => Failure::unfit(unfit),
            }
        })
    }
}

/// Whether a body that begins like this is a stream of events. Some servers don't say so, and some stream, or don't, whatever
/// they were asked: no event begins with a brace, and every whole completion does.
fn is_stream(begun: &[u8], content_type: &str, asked: bool) -> bool {
    if begun.trim_ascii_start().first() == Some(&b'{') {
        return false;
    }
    content_type.contains("event-stream") || (asked && !content_type.contains("json") && !content_type.contains("html"))
}

fn content_type(response: &Response) -> String {
    let value = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_ascii_lowercase()
}

impl Body {
    async fn next(&mut self) -> Result<Option<impl AsRef<[u8]> + use<>>, Problem> {
        let chunk = self
            .response
            .chunk()
            .await
            .map_err(|error| Problem::Broken(Some(error.without_url().into())))?;
        if let Some(chunk) = &chunk {
            self.read += chunk.len() as u64;
            if self.read > self.limit {
                return Err(Problem::TooLarge { limit: self.limit });
            }
        }
        Ok(chunk)
    }

    /// Reads until there is something to see.
    async fn begin(&mut self) -> Result<Vec<u8>, Problem> {
        let mut begun = Vec::new();
        while begun.trim_ascii_start().is_empty() {
            let Some(chunk) = self.next().await? else { break };
            begun.extend_from_slice(chunk.as_ref());
        }
        Ok(begun)
    }

    /// Reads all that follows on what has been read.
    async fn whole(&mut self, mut bytes: Vec<u8>) -> Result<Vec<u8>, Problem> {
        while let Some(chunk) = self.next().await? {
            bytes.extend_from_slice(chunk.as_ref());
        }
        Ok(bytes)
    }

    /// Reads a stream that begins like this to its end, passing text on as it arrives.
    async fn stream(mut self, begun: &[u8], outlet: &mut Outlet) -> Result<Completion, Failure> {
        let mut events = Events::default();
        let mut reading = Reading {
            completion: Completion::default(),
            done: false,
            until: None,
            outlet,
        };
        events.push(begun, |data| reading.take(data)).map_err(Failure::unfit)?;
        while !reading.done {
            let next = match reading.until {
                None => self.next().await,
                Some(until) => match timeout_at(until, self.next()).await {
                    Ok(next) => next,
                    Err(_) => break,
                },
            };
            match next {
                Ok(Some(chunk)) => events
                    .push(chunk.as_ref(), |data| reading.take(data))
                    .map_err(Failure::unfit)?,
                Ok(None) => return reading.end(events.finish()),
                // The reply is complete, whatever was still to come.
                Err(_) if reading.completion.is_finished() => break,
                Err(problem) => return Err(Failure::of(problem)),
            }
        }
        // A connection can be used again once its end is read, and that has mostly arrived.
        let _ = self.next().now_or_never();
        reading.complete()
    }
}

/// A stream that is being read.
struct Reading<'a> {
    completion: Completion,
    done: bool,
    /// When nothing more is waited for, once the completion is complete.
    until: Option<Instant>,
    outlet: &'a mut Outlet,
}

impl Reading<'_> {
    fn take(&mut self, data: &str) -> Result<(), Unfit> {
        let data = data.trim();
        self.done |= data == "[DONE]";
        if !self.done && !data.is_empty() {
            let text = self.completion.add_piece(data)?;
            self.outlet.send(&text);
            // Comments that keep the connection alive don't come here.
            self.until = self.completion.is_finished().then(|| Instant::now() + GRACE);
        }
        Ok(())
    }

    /// The stream ended without saying so. Its last event may be cut off.
    fn end(mut self, last: Option<String>) -> Result<Completion, Failure> {
        match last.map_or(Ok(()), |data| self.take(&data)) {
            Err(Unfit::Invalid(_)) | Ok(()) => {}
            Err(reported) => return Err(Failure::unfit(reported)),
        }
        if self.done || self.completion.is_finished() {
            return self.complete();
        }
        Err(Failure::of(Problem::Broken(None)))
    }

    fn complete(self) -> Result<Completion, Failure> {
        if self.completion.is_empty() {
            return Err(Failure::unfit(Unfit::Invalid("the stream has no `choices`".to_owned())));
        }
        Ok(self.completion)
    }
}

impl Failure {
    /// A failure that trying again won't mend.
    pub(crate) fn lasting(problem: Problem) -> Self {
        Self {
            problem,
            retry: Retry::Never,
        }
    }

    fn of(problem: Problem) -> Self {
        let retry = match problem {
            Problem::Connect { .. } | Problem::Broken(_) => Retry::After(None),
            _ => Retry::Never,
        };
        Self { problem, retry }
    }

    /// No answer came at all.
    fn unanswered(error: reqwest::Error) -> Self {
        let error = error.without_url();
        Self::of(if error.is_connect() {
            Problem::Connect {
                timed_out: error.is_timeout(),
                source: error.into(),
            }
        } else {
            Problem::Broken(Some(error.into()))
        })
    }

    /// The answer is an error.
    async fn refused(response: Response) -> Self {
        let status = response.status();
        let wished = retry::wished(response.headers());
        let target = response
            .headers()
            .get(LOCATION)
            .filter(|_| status.is_redirection())
            .and_then(|target| {
                let url = response.url().join(target.to_str().ok()?).ok()?;
                Some(format!(
                    "it redirects to {}, and redirects are not followed",
                    endpoint::shown(&url)
                ))
            });
        let message = match target {
            Some(message) => message,
            None => error_message(response).await,
        };
        // Too many requests for what is paid is no matter of time.
        let passing = retry::is_passing(status.as_u16()) && !message.contains("insufficient_quota");
        Self {
            problem: Problem::Status {
                status: status.as_u16(),
                message,
            },
            retry: if passing { Retry::After(wished) } else { Retry::Never },
        }
    }

    fn unfit(unfit: Unfit) -> Self {
        let reported = match unfit {
            Unfit::Invalid(reason) => return Self::lasting(Problem::Invalid { reason }),
            Unfit::Reported(reported) => reported,
        };
        Self {
            problem: Problem::Reported {
                status: reported.status,
                message: reported.message,
            },
            retry: if reported.status.is_some_and(retry::is_passing) {
                Retry::After(None)
            } else {
                Retry::Never
            },
        }
    }
}

async fn error_message(response: Response) -> String {
    let content_type = content_type(&response);
    let mut body = Body {
        response,
        read: 0,
        limit: ERROR_BYTES,
    };
    let mut bytes = Vec::new();
    let reading = async {
        while let Ok(Some(chunk)) = body.next().await {
            bytes.extend_from_slice(chunk.as_ref());
        }
    };
    // What has arrived has to do.
    let _ = timeout(ERROR_TIME, reading).await;
    message::of_body(&bytes, &content_type)
}

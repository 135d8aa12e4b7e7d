// An asynq program with one task, on queue `mail`. `asynq_app worker` runs tasks; `asynq_app producer` enqueues one for
// each line of standard input, KIND QUEUE JOB SECONDS [DELAY], and answers each with `ok`.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/hibiken/asynq"
)

// Queue of all tasks.
const queue = "mail"

type task struct {
	Job     string
	Seconds float64
}

// mark leaves a line for the tests. One write to a file opened for appending is never torn.
func mark(what, job string) {
	path := filepath.Join(os.Getenv("SWARM_TEST_DIR"), "marks")
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	if _, err := fmt.Fprintf(file, "%s %s %.3f\n", what, job, float64(time.Now().UnixMilli())/1000); err != nil {
		log.Fatal(err)
	}
}

func seconds(text string) time.Duration {
	number, err := strconv.ParseFloat(text, 64)
	if err != nil {
		log.Fatal(err)
	}
	return time.Duration(number * float64(time.Second))
}

func work(_ context.Context, of *asynq.Task) error {
	var job task
	if err := json.Unmarshal(of.Payload(), &job); err != nil {
		return err
	}
	mark("begin", job.Job)
	time.Sleep(time.Duration(job.Seconds * float64(time.Second)))
	mark("end", job.Job)
	return nil
}

// runWorker serves the queue until SIGTERM; SIGTSTP makes it take no more tasks.
func runWorker(broker asynq.RedisConnOpt) error {
	server := asynq.NewServer(broker, asynq.Config{
		Concurrency: 2,
		Queues:      map[string]int{queue: 1},
		// Shorter than the longest task of the tests.
		ShutdownTimeout:          time.Second,
		DelayedTaskCheckInterval: time.Second,
	})
	mux := asynq.NewServeMux()
	mux.HandleFunc("work", work)
	return server.Run(mux)
}

func runProducer(broker asynq.RedisConnOpt) error {
	client := asynq.NewClient(broker)
	defer client.Close()
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		payload, err := json.Marshal(task{Job: words[2], Seconds: seconds(words[3]).Seconds()})
		if err != nil {
			return err
		}
		options := []asynq.Option{asynq.Queue(queue)}
		if words[0] == "delayed" {
			options = append(options, asynq.ProcessIn(seconds(words[4])))
		}
		if _, err := client.Enqueue(asynq.NewTask("work", payload), options...); err != nil {
			return err
		}
		fmt.Println("ok")
	}
	return lines.Err()
}

func main() {
	broker, err := asynq.ParseRedisURI(os.Getenv("BROKER"))
	if err != nil {
		log.Fatal(err)
	}
	run := runProducer
	if os.Args[1] == "worker" {
		run = runWorker
	}
	if err := run(broker); err != nil {
		log.Fatal(err)
	}
}
